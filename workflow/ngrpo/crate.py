"""A study as a Workflow Run RO-Crate, and its check: who unpacks one can recompute every table from its grades.

A crate mirrors the project's folders, so that the same code reads it: Snakefile, rules/, config/, envs/ and
results/{scale}/ with specs, cards, metrics, grades, tables and report. Left out are weights, checkpoints and the
problems themselves, which are others' to publish, and samples, which are large: their cards are in it.
"""

import datetime
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ngrpo import __version__
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, read_json, whole_file, whole_folder
from ngrpo.report.tables import table_frame
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.spent import evaluation_spent, run_spent

PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # RO-Crate 1.1 has no word for it
PROJECT = ("Snakefile", "rules/*.smk", "config/**/*.yaml", "envs/*.lock", "envs/*.yaml", "LICENSE", "CITATION.cff")
RESULTS = (
    "data/*.json",
    "models/*.spec.json",
    "neighbors/*.spec.json",
    "runs/*/spec.json",
    "runs/*/metrics.jsonl",
    "runs/*/verl.json",
    "runs/*/hardware.json",
    "evaluations/**/*.grades.parquet",
    "evaluations/**/*.json",
    "analysis/*.parquet",
    "diagnostics/*.json",
    "report/**/*",
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


def export(study: Study, project: Path, results: Path, out: Path) -> list[str]:
    """Write the crate: a folder, or a .zip; returns what the study lacks yet, a line each.

    project: the folder of Snakefile and config; results: results/{scale}. Whole or not at all. Raises UserError where
    there is nothing to export.
    """
    files = {path.relative_to(project): path for path in _found(project, PROJECT)}
    here = Path("results") / study.scale
    files |= {here / path.relative_to(results): path for path in _found(results, RESULTS)}
    if not any(here in path.parents for path in files):
        raise UserError("there are no results to export", where=results, do="snakemake --cores 2")
    if out.suffix == ".zip":
        with whole_file(out) as part, tempfile.TemporaryDirectory() as folder:
            _write(study, files, results, Path(folder) / "crate")
            made = shutil.make_archive(str(Path(folder) / "made"), "zip", Path(folder) / "crate")
            shutil.move(made, part)
    else:
        with whole_folder(out) as part:
            _write(study, files, results, part)
    return _lacking(study, results)


def _found(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path


def _lacking(study: Study, results: Path) -> list[str]:
    lines = [f"run {r}" for r in study.runs if not (results / "runs" / r / "model" / "ngrpo.json").exists()]
    lines += [
        f"evaluation {e}" for e in study.evaluations if not (results / "evaluations" / f"{e}.grades.parquet").exists()
    ]
    return lines + [f"table {t}" for t in study.cells if not (results / "analysis" / f"{t}.parquet").exists()]


def _write(study: Study, files: dict[Path, Path], results: Path, folder: Path) -> None:
    from rocrate.model.contextentity import ContextEntity
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

    def entity(at: str, kind: str, /, **properties):
        return crate.add(ContextEntity(crate, at, {"@type": kind, **properties}))

    profiles = [entity(uri, "CreativeWork", name=name, version=version) for uri, name, version in PROFILES]
    crate.root_dataset["conformsTo"] = profiles
    crate.root_dataset["license"] = entity("https://spdx.org/licenses/Apache-2.0", "CreativeWork", name="Apache-2.0")
    workflow = crate.add_workflow(
        files[Path("Snakefile")], "Snakefile", main=True, lang="snakemake", properties={"name": "N-GRPO reproduced"}
    )
    workflow["version"], workflow["encodingFormat"] = __version__, "text/plain"
    held = {Path("Snakefile"): workflow}
    for path, source in files.items():
        if path not in held:
            kind = KINDS.get(path.suffix, "text/plain")
            told = {"name": str(path), "encodingFormat": kind, "contentSize": str(source.stat().st_size)}
            held[path] = crate.add_file(source, str(path), properties={**told, "sha256": file_sha256(source)})
    agent = entity("#ngrpo", "SoftwareApplication", name="ngrpo", softwareVersion=__version__)
    actions = list(_actions(study, results, held, workflow, agent, entity))
    crate.root_dataset["mentions"] = actions
    crate.write(folder)


def _actions(study: Study, results: Path, held: dict, workflow, agent, entity) -> Iterator:
    """The study as one run of the workflow, then each training and evaluation, with what it read, wrote and took."""
    here = Path("results") / study.scale

    def time_of(path: Path) -> str:
        return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")

    def action(identifier: str, name: str, reads: list[Path], writes: list[Path], spent, by) -> object:
        wrote = [held[path] for path in writes if path in held]
        last = max(
            (results / path.relative_to(here) for path in writes if path in held), key=lambda p: p.stat().st_mtime
        )
        told = f"{spent.hours:.4f} hours on {spent.devices} device(s)" if spent else "how long it took was not noted"
        taken = {"description": told}
        if spent:
            start = last.stat().st_mtime - spent.hours * 3600
            stamp = datetime.datetime.fromtimestamp(start, datetime.UTC).isoformat(timespec="seconds")
            taken["startTime"] = stamp
        return entity(
            identifier, "CreateAction", name=name, instrument=by, agent=agent, endTime=time_of(last),
            actionStatus="http://schema.org/CompletedActionStatus",
            object=[held[path] for path in reads if path in held], result=wrote, **taken,
        )  # fmt: skip

    config = [path for path in held if path.parts[0] == "config"]
    tables = [path for path in held if path.parent in (here / "analysis", here / "report")]
    if tables:
        yield action("#study", f"the study at scale {study.scale}", config, tables, None, workflow)
    for run in study.runs:
        folder, found = here / "runs" / run, run_spent(Results(results).run(run))
        wrote = [folder / name for name in ("metrics.jsonl", "verl.json")]
        if wrote[0] in held:
            yield action(
                f"#train-{run}", f"training {run}", [folder / "spec.json"], wrote, found and found[1], workflow
            )
    for name in study.evaluations:
        stem = here / "evaluations" / name
        grades = stem.with_name(f"{stem.name}.grades.parquet")
        if grades in held:
            found = evaluation_spent(Results(results).evaluation(name))
            spec = stem.with_name(f"{stem.name}.spec.json")
            identifier = f"#evaluate-{name.replace('/', '-')}"
            yield action(identifier, f"evaluation {name}", [spec], [grades], found and found[1], workflow)


def verify(crate: Path) -> tuple[list[str], list[str]]:
    """Check an unpacked crate: (what was checked, a line each; every difference, a line each).

    Files: all that the crate lists are there with the listed sha256. Tables: recomputed from the grades and compared,
    numbers up to 1e-9. Raises UserError where the folder is no crate of such a study.
    """
    metadata = crate / "ro-crate-metadata.json"
    if not metadata.exists():
        raise UserError(
            "this is no crate", where=crate, do="unpack it, and name the folder with ro-crate-metadata.json"
        )
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
    study, tables = load_study(crate / "config", scales[0].name), 0
    for table in study.cells:
        path = scales[0] / "analysis" / f"{table}.parquet"
        if path.exists():
            tables += 1
            differences += [
                f"table {table}: {line}" for line in _compared(pd.read_parquet(path), study, table, scales[0])
            ]
    return [f"{len(listed)} files against their sha256", f"{tables} tables recomputed from grades"], differences


def _compared(kept: pd.DataFrame, study: Study, table: str, results: Path) -> Iterator[str]:
    """Where a kept table and the recomputed one differ."""
    fresh = table_frame(table, study, results)
    if list(kept.columns) != list(fresh.columns) or len(kept) != len(fresh):
        yield f"{len(kept)} rows × {len(kept.columns)} columns are kept, {len(fresh)} × {len(fresh.columns)} recomputed"
        return
    for column in kept.columns:
        a, b = kept[column].reset_index(drop=True), fresh[column].reset_index(drop=True)
        if all(pd.api.types.is_numeric_dtype(x) and not pd.api.types.is_bool_dtype(x) for x in (a, b)):
            same = ((a - b).abs() <= 1e-9) | (a.isna() & b.isna())
        else:
            same = (a == b) | (a.isna() & b.isna())
        for row in list(same[~same].index)[:3]:
            cell = ", ".join(str(kept[name].iloc[row]) for name in ("label", "model", "benchmark", "metric"))
            yield f"{cell}: {column} is {a[row]} in the crate and {b[row]} recomputed"
