"""A study as a Workflow Run RO-Crate, and its check: who unpacks one can recompute every table from its grades.

A crate mirrors the project's folders, so that the same code reads it: Snakefile, rules/, config/, envs/ and
results/{scale}/ with specs, cards, metrics, grades, tables and report. Left out are weights, checkpoints and the
problems themselves, which are others' to publish, and samples, which are large: their cards are in it.
"""

import datetime
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ngrpo import __version__
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, read_json, whole_file, whole_folder
from ngrpo.report.tables import table_frame
from ngrpo.study.expand import DECIDED_FILE, Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.spent import Spent, evaluation_spent, run_spent

if TYPE_CHECKING:
    from rocrate.model.contextentity import ContextEntity
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # RO-Crate 1.1 has no word for it
METADATA = "ro-crate-metadata.json"
PROJECT = ("Snakefile", "rules/*.smk", "envs/*.lock", "envs/*.yaml", "LICENSE", "CITATION.cff")
CONFIGURATION = ("*.yaml", "scales/*.yaml", DECIDED_FILE)
ANY = Results(Path())
"""The layout with no folder before it: its paths of the id * are patterns."""
RESULTS = (
    ANY.dataset("*").spec,
    ANY.dataset("*").card,
    ANY.model("*").spec,
    ANY.neighbors("*").spec,
    ANY.run("*").spec,
    ANY.run("*").metrics,
    ANY.run("*").verl_settings,
    ANY.run("*").hardware,
    ANY.evaluation("*/*/*").grades,
    ANY.evaluation("*/*/*").spec,
    ANY.evaluation("*/*/*").samples_card,
    ANY.evaluation("*/*/*").samples_time,
    ANY.table("*"),
    ANY.diagnostics("*"),
    ANY.report.folder / "**" / "*",
)
KINDS = {
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".yaml": "application/yaml",
    ".html": "text/html",
    ".csv": "text/csv",
    ".ipynb": "application/x-ipynb+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def export(study: Study, project: Path, results: Path | Results, out: Path) -> list[str]:
    """Write the crate: a folder, or a .zip; returns what the study lacks yet, a line each.

    project: the folder of the Snakefile; results: results/{scale}. The configuration is the study's. Whole or not at
    all. Raises UserError where there is nothing to export.
    """
    results = Results.of(results)
    files = {path.relative_to(project): path for path in _files(project, PROJECT)}
    config = study.folder or project / "config"
    files |= {Path("config") / path.relative_to(config): path for path in _files(config, CONFIGURATION)}
    here = Path("results") / study.scale
    files |= {here / path.relative_to(results.root): path for path in _files(results.root, map(str, RESULTS))}
    if not any(here in path.parents for path in files):
        raise UserError("there are no results to export", where=results.root, do="snakemake --cores 2")
    if out.suffix == ".zip":
        with whole_file(out) as part, tempfile.TemporaryDirectory() as folder:
            _write(study, files, results, Path(folder) / "crate")
            made = shutil.make_archive(str(Path(folder) / "made"), "zip", Path(folder) / "crate")
            shutil.move(made, part)
    else:
        with whole_folder(out) as part:
            _write(study, files, results, part)
    return _lacking(study, results)


def _files(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _lacking(study: Study, results: Results) -> list[str]:
    lines = [f"run {run}" for run in study.runs if not results.run(run).model_card.exists()]
    lines += [f"evaluation {name}" for name in study.evaluations if not results.evaluation(name).grades.exists()]
    return lines + [f"table {name}" for name in study.cells if not results.table(name).exists()]


def _write(study: Study, files: dict[Path, Path], results: Results, folder: Path) -> None:
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms = TERMS
    crate.name = f"N-GRPO reproduced, scale {study.scale}"
    crate.description = (
        "Specs, logged metrics, grades, tables and report of a reproduction of N-GRPO (arXiv 2606.10768). "
        f"{'' if study.size.verdicts else 'A trial at small scale: it says nothing about the paper. '}"
        "`ngrpo verify` recomputes the tables from the grades."
    )
    crate.license = "https://spdx.org/licenses/Apache-2.0"
    profiles = [_add(crate, uri, "CreativeWork", name=name, version=version) for uri, name, version in PROFILES]
    crate.root_dataset["conformsTo"] = profiles
    crate.root_dataset["license"] = _add(crate, crate.license, "CreativeWork", name="Apache-2.0")
    workflow = crate.add_workflow(
        files[Path("Snakefile")], "Snakefile", main=True, lang="snakemake", properties={"name": "N-GRPO reproduced"}
    )
    workflow["version"], workflow["encodingFormat"] = __version__, "text/plain"
    entities = {Path("Snakefile"): workflow}
    for path, source in files.items():
        if path not in entities:
            properties = {
                "name": str(path),
                "encodingFormat": KINDS.get(path.suffix, "text/plain"),
                "contentSize": str(source.stat().st_size),
                "sha256": file_sha256(source),
            }
            entities[path] = crate.add_file(source, str(path), properties=properties)
    agent = _add(crate, "#ngrpo", "SoftwareApplication", name="ngrpo", softwareVersion=__version__)
    crate.root_dataset["mentions"] = list(
        _actions(study, results, _Actions(crate, entities, results, Path("results") / study.scale, workflow, agent))
    )
    crate.write(folder)


def _add(crate: "ROCrate", identifier: str, kind: str, /, **properties: Any) -> "ContextEntity":
    from rocrate.model.contextentity import ContextEntity

    return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))


@dataclass(frozen=True)
class _Actions:
    """Makes a crate's actions."""

    crate: "ROCrate"
    entities: dict[Path, "Entity"]
    """Every file of the crate, by its path there."""
    results: Results
    inside: Path
    """Where the results lie in the crate."""
    workflow: "Entity"
    agent: "Entity"

    def has(self, path: Path) -> bool:
        """Whether a file of the results is in the crate."""
        return self.inside / self.results.relative(path) in self.entities

    def entities_of(self, *paths: Path) -> list["Entity"]:
        """The entities of those files of the results that are in the crate."""
        return [self.entities[self.inside / self.results.relative(path)] for path in paths if self.has(path)]

    def made(
        self, identifier: str, name: str, reads: list["Entity"], writes: list[Path], spent: Spent | None
    ) -> "ContextEntity":
        """An action that made files of the results, all or some of which are in the crate. spent: None if unknown."""
        wrote = [path for path in writes if self.has(path)]
        end = max(path.stat().st_mtime for path in wrote)
        duration = (
            f"{spent.hours:.4f} hours on {spent.devices} device(s)" if spent else "how long it took was not noted"
        )
        properties: dict[str, Any] = {"description": duration}
        if spent:
            properties["startTime"] = _time(end - spent.hours * 3600)
        return _add(
            self.crate, identifier, "CreateAction", name=name, instrument=self.workflow, agent=self.agent,
            endTime=_time(end), actionStatus="http://schema.org/CompletedActionStatus", object=reads,
            result=self.entities_of(*wrote), **properties,
        )  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _actions(study: Study, results: Results, actions: _Actions) -> Iterator["ContextEntity"]:
    """The study as one run of the workflow, then each training and evaluation, with what it read, wrote and took."""
    config = [entity for path, entity in actions.entities.items() if path.parts[0] == "config"]
    folders = (results.table("*").parent, results.report.folder)
    tables = [path for folder in folders for path in sorted(folder.glob("*")) if actions.has(path)]
    if tables:
        yield actions.made("#study", f"the study at scale {study.scale}", config, tables, None)
    for run in study.runs:
        files = results.run(run)
        if actions.has(files.metrics):
            spent, wrote = run_spent(files), [files.metrics, files.verl_settings]
            reads = actions.entities_of(files.spec)
            yield actions.made(f"#train-{run}", f"training {run}", reads, wrote, spent[1] if spent else None)
    for name in study.evaluations:
        evaluation = results.evaluation(name)
        if actions.has(evaluation.grades):
            took, reads = evaluation_spent(evaluation), actions.entities_of(evaluation.spec)
            identifier = f"#evaluate-{name.replace('/', '-')}"
            yield actions.made(identifier, f"evaluation {name}", reads, [evaluation.grades], took[1] if took else None)


def verify(crate: Path) -> tuple[list[str], list[str]]:
    """Check an unpacked crate: (what was checked, a line each; every difference, a line each).

    Files: all that the crate lists are there with the listed sha256. Tables: recomputed from the grades and compared,
    numbers up to 1e-9. Raises UserError where the folder is no crate of such a study.
    """
    metadata = crate / METADATA
    if not metadata.exists():
        raise UserError("this is no crate", where=crate, do=f"unpack it, and name the folder with {METADATA}")
    listed = [e for e in read_json(metadata)["@graph"] if "sha256" in e]
    differences = []
    for entry in listed:
        path = crate / entry["@id"]
        if not path.is_file():
            differences.append(f"{entry['@id']}: the file is missing")
        elif file_sha256(path) != entry["sha256"]:
            differences.append(f"{entry['@id']}: the file isn't the one that was exported (sha256)")
    scales = sorted(p for p in (crate / "results").glob("*") if p.is_dir())
    if len(scales) != 1:
        raise UserError(f"{len(scales)} studies instead of one", where=crate / "results")
    study, results, tables = load_study(crate / "config", scales[0].name, scales[0]), Results(scales[0]), 0
    for table in study.cells:
        if results.table(table).exists():
            tables += 1
            stored, fresh = pd.read_parquet(results.table(table)), table_frame(table, study, results)
            differences += [f"table {table}: {line}" for line in _compared(stored, fresh)]
    return [f"{len(listed)} files against their sha256", f"{tables} tables recomputed from grades"], differences


def _compared(stored: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[str]:
    """Where the crate's table and the recomputed one differ."""
    if list(stored.columns) != list(fresh.columns) or len(stored) != len(fresh):
        inside, recomputed = (f"{len(frame)} rows × {len(frame.columns)} columns" for frame in (stored, fresh))
        yield f"{inside} are in the crate, {recomputed} recomputed"
        return
    for column in stored.columns:
        a, b = stored[column].reset_index(drop=True), fresh[column].reset_index(drop=True)
        if all(pd.api.types.is_numeric_dtype(x) and not pd.api.types.is_bool_dtype(x) for x in (a, b)):
            same = ((a - b).abs() <= 1e-9) | (a.isna() & b.isna())
        else:
            same = (a == b) | (a.isna() & b.isna())
        for row in list(same[~same].index)[:3]:
            cell = ", ".join(str(stored[name].iloc[row]) for name in ("label", "model", "benchmark", "metric"))
            yield f"{cell}: {column} is {a[row]} in the crate and {b[row]} recomputed"
