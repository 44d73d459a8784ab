"""A crate's metadata: every file with its sha256; every training and evaluation as an action that links its files."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngrpo import __version__
from ngrpo.crate.packed import KINDS
from ngrpo.files import file_sha256
from ngrpo.study.expand import Study
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


def write_metadata(study: Study, staged: Path, folder: Path) -> None:
    """Write the crate of a staged study into a folder: its files, and what made them."""
    from rocrate.rocrate import ROCrate

    files = {path.relative_to(staged): path for path in sorted(staged.rglob("*")) if path.is_file()}
    results = Results(staged / "results" / study.scale)

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
    workflow["sha256"] = file_sha256(files[Path("Snakefile")])
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
    folders = (results.table("*").parent, results.exploration("*").parent, results.report.folder)
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
