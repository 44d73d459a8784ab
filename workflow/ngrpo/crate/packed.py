"""What a crate holds: a list of names, plain files alone, and nothing that says on which machine they were made."""

import json
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import canonical_json
from ngrpo.foreign import parse_json, read_text
from ngrpo.study.contents import imported_files
from ngrpo.study.expand import DECIDED_FILE, Study
from ngrpo.study.layout import Results

METADATA = "ro-crate-metadata.json"
MADE_WITH = "versions.json"
"""At the crate's root: the versions that its page shows, under which the page is the same file again."""
PROJECT = ("Snakefile", "rules/*.smk", "envs/*.lock", "envs/*.yaml", "LICENSE", "CITATION.cff")
CONFIG = ("study.yaml", "costs.yaml", "claims.yaml", "paper_values.yaml")
KINDS = {
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".yaml": "application/yaml",
    ".html": "text/html",
    ".csv": "text/csv",
    ".ipynb": "application/x-ipynb+json",
    ".svg": "image/svg+xml",
}
SETTINGS = (Results(Path()).run("").verl_settings.name, Results(Path()).run("").hardware.name)
"""Files of a run that hold settings of the machine."""
PRIVATE = ("host", "hostname", "lease", "pid", "user", "username")
"""Keys of settings that say who ran them where."""


def config_files(study: Study) -> tuple[str, ...]:
    """The files of a configuration that a study is read from."""
    return (*CONFIG, f"scales/{study.scale}.yaml", DECIDED_FILE)


def result_files(study: Study, results: Results) -> Iterator[Path]:
    """Every file of a study's results that goes into a crate, there or not; the report's are in `report_patterns`."""
    yield from (results.root / name for name in study.specs())
    yield from (results.dataset(name).card for name in study.datasets)
    yield from (results.training_data(spec.dataset.id, model).card for model, spec in study.training_data.items())
    for run in study.runs:
        files = results.run(run)
        yield from (files.metrics, files.verl_settings, files.hardware, files.model_card)
    for name in study.evaluations:
        evaluation = results.evaluation(name)
        yield from (evaluation.grades, evaluation.samples_card, evaluation.samples_time)
    yield from (path for name in study.cells for path in (results.table(name), results.exploration(name)))
    yield from (results.diagnostics(run) for run in study.mixing_runs)
    yield results.looks
    yield results.contents


def report_patterns(study: Study, results: Results) -> Iterator[str]:
    """Names of the report's files, relative to the results, as patterns."""
    report = results.report
    files = [report.page, report.claims, report.compliance, report.notebook("*")]
    files += [report.figures / "*.svg", report.problems / "*.html"]
    files += [report.table(name, kind) for name in study.cells for kind in ("html", "tex", "csv")]
    yield from map(results.relative, files)


def imported_patterns(results: Results) -> tuple[str, str]:
    """Names of imported curves and their cards, relative to the results, as patterns."""
    files = results.imported("*")
    return results.relative(files.curves), results.relative(files.card)


def may_hold(study: Study, name: str) -> bool:
    """Whether a crate of this study may hold a file of this name (a path in it, with /)."""
    inside = Results(Path("results") / study.scale)
    exact = {MADE_WITH, METADATA, *(f"config/{file}" for file in config_files(study))}
    exact |= {path.as_posix() for path in result_files(study, inside)}
    of_results = (*report_patterns(study, inside), *imported_patterns(inside))
    patterns = [*PROJECT, *(f"{inside.root.as_posix()}/{pattern}" for pattern in of_results)]
    # a pattern's * stands for no /: a file in a folder below is another file
    return name in exact or any(
        fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns
    )


def gathered(study: Study, project: Path, results: Results) -> dict[Path, Path]:
    """The files that go in, but the report's that are made anew: path in the crate → where it is here.

    Raises UserError for a link, or anything that is no file.
    """
    here = Path("results") / study.scale
    files = {path.relative_to(project): path for path in _matching(project, PROJECT)}
    config = study.folder or project / "config"
    files |= {Path("config") / name: config / name for name in config_files(study) if (config / name).exists()}
    wanted = [path for path in result_files(study, results) if os.path.lexists(path)]
    wanted += _matching(results.report.folder, ("*.ipynb",))
    wanted += imported_files(results)
    files |= {here / path.relative_to(results.root): path for path in dict.fromkeys(wanted)}
    for root, path in ((project, p) for p in files.values() if project in p.parents):
        _plain(root, path)
    for path in wanted:
        _plain(results.root, path)
    return files


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return [path for path in paths if not path.name.startswith(".")]


def _plain(root: Path, path: Path) -> None:
    """Raise UserError where a file, or a folder on the way to it, is a link or something else."""
    for part in (path, *path.parents):
        if part == root:
            break
        mode = os.lstat(part).st_mode
        if stat.S_ISLNK(mode):
            raise UserError(
                "this is a link, and what it names may be no part of the study", where=part, do="put the file there"
            )
        if not (stat.S_ISREG(mode) if part == path else stat.S_ISDIR(mode)):
            raise UserError("this is no file, and can't go into a crate", where=part, do="remove it")


# --- nothing of the machine ---


class Cleaner:
    """Takes this machine's folders and names out of text that goes into a crate."""

    def __init__(self, project: Path, results: Results, scale: str, config: Path | None):
        places = {
            results.root.resolve(): f"results/{scale}",
            results.root.resolve().parent: "results",
            **({config.resolve(): "config"} if config else {}),
            project.resolve(): ".",
            Path.cwd(): ".",
            Path.home(): "~",
        }
        # the longest first: a folder in a folder; none as short as /
        self.places = sorted(((str(p), to) for p, to in places.items() if len(p.parts) > 1), key=lambda x: -len(x[0]))
        self.host = re.compile(rf"(?<![\w.-]){re.escape(socket.gethostname())}(?![\w-])")

    def text(self, text: str) -> str:
        """Text with the study's paths relative, and other folders of this machine cut to their last name."""
        for place, to in self.places:
            text = text.replace(place, to)
        return text

    def settings(self, value: Any) -> Any:
        """Settings without who ran them where; a path keeps what is below the study, or its last name."""
        if isinstance(value, dict):
            return {key: self.settings(inner) for key, inner in value.items() if key not in PRIVATE}
        if isinstance(value, list):
            return [self.settings(inner) for inner in value]
        if not isinstance(value, str):
            return value
        cleaned = self.text(value)
        return self.host.sub("host", PurePosixPath(cleaned).name if cleaned.startswith("/") else cleaned)

    def content(self, path: Path) -> bytes:
        """What goes into the crate of a file. Specs and configuration stay as they are: digests are identities."""
        if path.suffix not in (".json", ".jsonl", ".ipynb") or path.name.endswith("spec.json"):
            return path.read_bytes()
        if path.name in SETTINGS:
            return canonical_json(self.settings(parse_json(read_text(path), path))).encode()
        if path.suffix == ".ipynb":
            value = parse_json(read_text(path), path)
            if isinstance(value, dict) and isinstance(value.get("metadata"), dict):
                value["metadata"].pop("papermill", None)
            return self.text(json.dumps(value, ensure_ascii=False, indent=1)).encode()
        return self.text(read_text(path)).encode()

    def named_in(self, files: dict[Path, Path]) -> list[str]:
        """Files that stay as they are and name a folder of this machine: the user's configuration, and specs."""
        unchanged = {inside: path for inside, path in files.items() if path.suffix == ".yaml" or "spec" in path.name}
        texts = {inside: read_text(path) for inside, path in unchanged.items()}
        return [str(inside) for inside, text in texts.items() if any(place in text for place, _ in self.places)]
