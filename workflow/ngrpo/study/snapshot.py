"""What is in the queue is fixed: settings and configuration as they were when Snakemake started, kept with the results.

On a cluster every job starts Snakemake anew, hours later. It reads this copy, not the files that its user may have
edited since: the same settings, study, names and batches, hence the same rules, inputs and specs. Stages that read the
whole study (tables, notebooks, report) read it, too. The copy is named by its content, so that nothing ever changes it
and two studies in a row don't meet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import digest, read_json, whole_folder, write_json
from ngrpo.study.batches import Batch, decide_batches
from ngrpo.study.config import ScaleFile
from ngrpo.study.expand import DECIDED_FILE, SETTINGS_FILE, Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.reading import parse, read_yaml
from ngrpo.study.sbatch import SITE_FILE
from ngrpo.study.settings import Settings, read_settings

KEY = "snapshot"  # in Snakemake's config: the copy that a job reads


@dataclass(frozen=True)
class Snapshot:
    """The settings of a start of Snakemake, and the files of its study by their names in the configuration folder."""

    settings: Mapping[str, Any]
    files: Mapping[str, str]
    decided: Mapping[str, Any]
    """The names of runs and evaluations, their further seeds, and the batches."""

    @classmethod
    def take(
        cls, settings: Mapping[str, Any], study: Study, batches: list[Batch], growing: Mapping[str, int | None]
    ) -> "Snapshot":
        """Of a study that was just read; growing: its claims that are being decided."""
        folder = study.folder or Path()
        paths = [*sorted(folder.glob("*.yaml")), folder / "scales" / f"{study.scale}.yaml"]
        texts = {p.relative_to(folder).as_posix(): p.read_bytes().decode("utf-8", errors="replace") for p in paths}
        seeds = {name: study.seeds_of(name)[1:] for name in study.extra_seeds}
        decided = {"names": study.names, "seeds": seeds, "growing": dict(growing), "contents": study.contents}
        decided["batches"] = [[b.system, list(b.benchmarks)] for b in batches]
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


@dataclass(frozen=True)
class Start:
    """What a start of Snakemake works on."""

    settings: Settings
    study: Study
    results: Results
    batches: list[Batch]
    snapshot: Path
    """The copy that it and its jobs read."""
    asked: Study
    """The study without what claims that are being decided may get: what tables and the page show."""

    in_job: bool = False

    def folder_files(self) -> dict[str, Path]:
        """The user's file of every data set of kind `folder`; a job needn't see those that it doesn't read."""
        return self.study.folder_files(self.settings.data_folder, checked=not self.in_job)

    @property
    def config_of_jobs(self) -> list[str]:
        """What a job's own Snakemake is given by --config, in letters that no shell takes for more."""
        return [f"{KEY}={quote(str(self.snapshot))}"]


def start(config: Mapping[str, Any], *, looks_only: bool = False, deciding: Sequence[str] = ()) -> Start:
    """The study of Snakemake's config: as it is now, or, in a job, as it was when the job was submitted.

    looks_only: a dry run, of which nothing is kept; deciding: claims whose `decide-…` target is asked for. Raises
    UserError for a mistake in config or configuration.
    """
    if KEY in config:
        return _of_job(Path(unquote(config[KEY])))
    settings = read_settings(dict(config))
    results = Results(Path(settings.root))
    growing = dict.fromkeys((*deciding, *settings.asked_claims), settings.max_seeds)
    asked = load_study(Path(settings.config), settings.scale, results.root)
    study = load_study(Path(settings.config), settings.scale, results.root, growing) if growing else asked
    _check_layouts(settings, study)
    batches = decide_batches(study, results)
    taken = Snapshot.take(config, study, batches, growing)
    snapshot = results.snapshot(taken.digest)
    if not looks_only:
        taken.write(snapshot)
        # a claim that is being decided is looked at hours later: what is edited meanwhile is for the next start
        same, asked = study is asked, replace(asked, folder=snapshot)
        study = asked if same else replace(study, folder=snapshot)
    return Start(settings, study, results, batches, snapshot, asked)


def _check_layouts(settings: Settings, study: Study) -> None:
    """Raises UserError, with the nearest name, where nodes or engines are given to a run or model of no scale."""
    if settings.cluster is None:
        return
    given = {"nodes": settings.cluster.nodes, "tensor_parallel": settings.cluster.tensor_parallel}
    known = {*study.models, *study.runs, *study.also}
    if {*given["nodes"], *given["tensor_parallel"]} <= known:
        return
    for path in (study.folder or Path()).glob("scales/*.yaml"):
        models = read_yaml(ScaleFile, path).models
        known |= {*models, *(f"{method}-{model}" for method in study.study.methods for model in models)}
    for key, names in given.items():
        for name in names:
            if name not in known:
                raise unknown_name("run or model", name, known, where=f"{SITE_FILE}: cluster.{key}")


def _of_job(snapshot: Path) -> Start:
    if not snapshot.exists():
        raise UserError(
            "the configuration that this job was submitted with is gone",
            where=snapshot,
            do="start Snakemake again: what is done stays",
        )
    settings = parse(Settings, read_json(snapshot / SETTINGS_FILE), snapshot / SETTINGS_FILE)
    decided = read_json(snapshot / DECIDED_FILE)
    growing, asked = decided.get("growing", {}), load_study(snapshot, settings.scale)
    study = load_study(snapshot, settings.scale, growing=growing) if growing else asked
    batches = [Batch(system, tuple(names)) for system, names in decided["batches"]]
    return Start(settings, study, Results(Path(settings.root)), batches, snapshot, asked, in_job=True)
