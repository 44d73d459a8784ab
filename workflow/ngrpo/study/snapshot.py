"""What is in the queue is fixed: settings and configuration as they were when Snakemake started, kept with the results.

On a cluster every job starts Snakemake anew, hours later. It reads this copy, not the files that its user may have
edited since: the same settings, study, names and batches, hence the same rules, inputs and specs. Stages that read the
whole study (tables, notebooks, report) read it, too. The copy is named by its content, so that nothing ever changes it
and two studies in a row don't meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import digest, read_json, whole_folder, write_json
from ngrpo.study.batches import Batch
from ngrpo.study.expand import DECIDED_FILE, Study

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Snapshot:
    """The settings of a start of Snakemake, and the files of its study by their names in the configuration folder."""

    settings: Mapping[str, Any]
    files: Mapping[str, str]
    decided: Mapping[str, Any]
    """The names of runs and evaluations, and the batches."""

    @classmethod
    def take(cls, settings: Mapping[str, Any], study: Study, batches: list[Batch]) -> "Snapshot":
        """Of a study that was just read."""
        folder = study.folder or Path()
        paths = [*sorted(folder.glob("*.yaml")), folder / "scales" / f"{study.scale}.yaml"]
        texts = {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8", errors="replace") for p in paths}
        decided = {"names": study.names, "batches": [[b.system, list(b.benchmarks)] for b in batches]}
        return cls(dict(settings), texts, decided)

    @cached_property
    def digest(self) -> str:
        """12 hex digits that identify it."""
        return digest([self.settings, self.files, self.decided])

    def write(self, folder: Path) -> None:
        """Keep it, where it isn't there yet."""
        if folder.exists():
            return
        with whole_folder(folder) as part:
            for name, text in self.files.items():
                (part / name).parent.mkdir(exist_ok=True)
                (part / name).write_text(text, encoding="utf-8")
            write_json(part / DECIDED_FILE, self.decided)
            write_json(part / SETTINGS_FILE, self.settings)


def kept_settings(folder: Path) -> dict[str, Any]:
    """The settings of a snapshot. Raises UserError where it is gone."""
    if not folder.exists():
        raise UserError(
            "the configuration that this job was submitted with is gone",
            where=folder,
            do="start Snakemake again: what is done stays",
        )
    settings: dict[str, Any] = read_json(folder / SETTINGS_FILE)
    return settings


def kept_batches(folder: Path) -> list[Batch]:
    """The batches of a snapshot."""
    return [Batch(system, tuple(benchmarks)) for system, benchmarks in read_json(folder / DECIDED_FILE)["batches"]]
