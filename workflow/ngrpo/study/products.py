"""What a study makes: every run, policy, evaluation and table of it with its spec, and where each lies."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.study.layout import Results
from ngrpo.study.matrix import Matrix
from ngrpo.study.naming import NOTEBOOKS, check_files, check_targets, files_of
from ngrpo.study.specs import EvaluationSpec, NeighborSpec, PolicySpec, RunSpec, Spec, keep_spec

BELOW = Results(Path())  # paths relative to the scale's results


@dataclass(frozen=True)
class Cell:
    """One system on one model and benchmark, in a table: which evaluation fills it."""

    label: str
    model: str
    benchmark: str
    evaluation: str
    """policy/decoding/benchmark, the evaluation's path."""


@dataclass(frozen=True)
class Products(Matrix):
    """What the tables of a study at one scale need, each once and in the study's order."""

    runs: dict[str, RunSpec] = field(default_factory=dict)
    policies: dict[str, PolicySpec] = field(default_factory=dict)
    evaluations: dict[str, EvaluationSpec] = field(default_factory=dict)
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    neighbors: dict[str, NeighborSpec] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    """A run's other ids, such as a renamed method's: the id under which it is made."""
    sources: dict[str, str] = field(default_factory=dict)
    """Where a policy or an evaluation's predictions from elsewhere lie on this machine; no part of what they are."""

    @cached_property
    def products(self) -> dict[str, Path]:
        """What can be asked for by name, and the file or folder below the results that it is."""
        return {
            **{name: BELOW.model(name).folder for name in self.models},
            **{name: BELOW.neighbors(name).table for name in self.neighbors},
            **{name: BELOW.policy(name).folder for name in self.policies},
            **{name: BELOW.run(made).model for name, made in self.also.items()},
            **{name: BELOW.run(name).model for name in self.runs},
            **{name: BELOW.table(name) for name in self.cells},
            **{f"diagnostics-{name}": BELOW.diagnostics(name) for name in self.mixing_runs},
        }

    @cached_property
    def mixing_runs(self) -> list[str]:
        """For each model the first run that mixes neighbors: the one whose diagnostics are shown."""
        first = {spec.model.id: name for name, spec in reversed(self.runs.items()) if spec.exploration.needs_table}
        return [name for name in self.runs if name in first.values()]

    def folder_files(self, data_folder: str | None, *, checked: bool = True) -> dict[str, Path]:
        """The user's file of every data set of kind `folder`.

        Raises UserError where no folder is named, or (checked) where it lacks a file.
        """
        files = {}
        for name, spec in self.datasets.items():
            if spec.dataset.source.kind != "folder":
                continue
            if data_folder is None:
                raise UserError(
                    f"data set '{name}' is read from your data folder, and none is named",
                    where=f"scale {self.scale}",
                    do="add --config data_folder=PATH",
                )
            files[name] = Path(data_folder) / spec.dataset.source.file
            if checked and not files[name].is_file():
                raise UserError(f"the file of data set '{name}' isn't in your data folder", where=files[name])
        return files

    def specs(self) -> dict[str, Spec]:
        """Every spec by the path, relative to the scale's results, of the file that lies beside what is made for it."""
        files = {
            **{BELOW.dataset(i).spec: s for i, s in self.datasets.items()},
            **{BELOW.training_data(s.dataset.id, i).spec: s for i, s in self.training_data.items()},
            **{BELOW.model(i).spec: s for i, s in self.models.items()},
            **{BELOW.policy(i).spec: s for i, s in self.policies.items()},
            **{BELOW.neighbors(i).spec: s for i, s in self.neighbors.items()},
            **{BELOW.run(i).spec: s for i, s in self.runs.items()},
            **{BELOW.evaluation(i).spec: s for i, s in self.evaluations.items()},
        }
        return {path.as_posix(): spec for path, spec in files.items()}

    def store_specs(self, results: Results) -> None:
        """Write every spec for the jobs that take it; one that is there is left untouched.

        Its time says what Snakemake would conclude from it where it has kept no records of its own: older than what was
        made for it, newer than what was made for another.
        """
        for name, spec in self.specs().items():
            path, beside = results.spec(spec.digest), results.root / name
            new = not path.exists()
            keep_spec(spec, path)
            if beside.exists():
                same = beside.read_text(encoding="utf-8", errors="replace") == spec.text()
                if same and new:
                    os.utime(path, (0, 0))
                elif not same and path.stat().st_mtime <= beside.stat().st_mtime:
                    os.utime(path)

    def check_names(self, folder: Path) -> None:
        """Raises UserError where two things of the study have the same name, or would be at the same place."""
        kinds: dict[str, Iterable[str]] = {
            "model": self.models,
            "neighbor table": self.neighbors,
            "policy": self.policies,
            "run": [*self.runs, *(name for name in self.also if name not in self.runs)],
            "table": self.cells,
            "diagnostics": [f"diagnostics-{name}" for name in self.mixing_runs],
            "target of the scale": self.size.targets,
        }
        check_targets(kinds, self.datasets, folder)
        report = BELOW.report
        owners: dict[str, list[Path]] = {}
        for kind, names, files in (
            ("the data set", self.datasets, BELOW.dataset),
            ("the model", self.models, BELOW.model),
            ("the neighbor table", self.neighbors, BELOW.neighbors),
            ("the policy", self.policies, BELOW.policy),
            ("the run", self.runs, BELOW.run),
            ("the evaluation", self.evaluations, BELOW.evaluation),
        ):
            owners.update({f"{kind} '{name}'": files_of(files(name)) for name in names})
        for name, data in self.training_data.items():
            owners[f"the training problems of model '{name}'"] = files_of(BELOW.training_data(data.dataset.id, name))
        for name in self.cells:
            shown = [report.table(name, kind) for kind in ("html", "tex", "csv")]
            owners[f"the table '{name}'"] = [BELOW.table(name), BELOW.exploration(name), BELOW.excerpts(name), *shown]
        owners["the list of batches"] = [BELOW.batches]
        owners["the report"] = [report.page, report.claims, report.compliance, *map(report.notebook, NOTEBOOKS)]
        check_files(owners, folder)
