"""From configuration to jobs: every run and evaluation that the tables need, each once.

Tables name rows; rows name runs and evaluations. Runs with equal specs are one run, under the id of the method that the
tables name first, or under the id that it was made under (`ngrpo.study.naming`); so are evaluations.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.study.cards import Decided
from ngrpo.study.config import ResultTable, Row, ScaleFile, StudyFile, load
from ngrpo.study.layout import Results
from ngrpo.study.mixing import MixerConfig, NoMixer, TableFields
from ngrpo.study.naming import NOTEBOOKS, Names, asked, check_files, check_targets, files_of, made_names, name_of
from ngrpo.study.reading import parse
from ngrpo.study.specs import (
    DatasetSpec,
    Decoding,
    EvaluationSpec,
    ModelSpec,
    NeighborSpec,
    RunSpec,
    Spec,
    Training,
    TrainingDataSpec,
    keep_spec,
)
from ngrpo.study.switches import release

BELOW = Results(Path())  # paths relative to the scale's results
DECIDED_FILE = "decided.json"  # in a snapshot of a configuration: the names and batches that its jobs have


@dataclass(frozen=True)
class Cell:
    """One system on one model and benchmark, in a table: which evaluation fills it."""

    label: str
    model: str
    benchmark: str
    evaluation: str
    """policy/decoding/benchmark, the evaluation's path."""


@dataclass(frozen=True)
class Study:
    """A study at one scale, expanded. All mappings are in the study's order."""

    scale: str
    study: StudyFile
    size: ScaleFile
    runs: dict[str, RunSpec] = field(default_factory=dict)
    evaluations: dict[str, EvaluationSpec] = field(default_factory=dict)
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    neighbors: dict[str, NeighborSpec] = field(default_factory=dict)
    extra_seeds: dict[str, list[str]] = field(default_factory=dict)
    """An evaluation of a trained policy: the same with the scale's further seeds."""
    names: dict[str, str] = field(default_factory=dict)
    """The digest of what was asked for: the id under which it is made."""
    made: dict[str, list[str]] = field(default_factory=dict)
    """The same of what is there already: the ids under which it was made."""
    also: dict[str, str] = field(default_factory=dict)
    """A run's other ids, such as a renamed method's: the id under which it is made."""
    folder: Path | None = None
    """The configuration folder."""

    @cached_property
    def datasets(self) -> dict[str, DatasetSpec]:
        """Every data set of the scale."""
        return {i: DatasetSpec(id=i, dataset=d) for i, d in self.size.datasets.items()}

    @cached_property
    def models(self) -> dict[str, ModelSpec]:
        """Every base model of the scale."""
        return {i: ModelSpec(id=i, model=m) for i, m in self.size.models.items()}

    @cached_property
    def training_data(self) -> dict[str, TrainingDataSpec]:
        """The filtered training problems, one a model (their token limit is the model's tokenizer's)."""
        kept_out = dict.fromkeys((*self.size.benchmarks, self.size.validation))
        return {
            i: TrainingDataSpec(
                dataset=self.datasets[self.size.training_data],
                model=model,
                benchmarks=tuple(self.datasets[b] for b in kept_out),
                max_prompt_tokens=self.size.training.max_prompt_tokens,
                near_duplicates=self.size.near_duplicates,
            )
            for i, model in self.models.items()
        }

    def neighbor_table(self, mixer: MixerConfig, model: ModelSpec) -> str | None:
        """The id of the table that this mixer needs on this model, or None; notes the table."""
        if not mixer.needs_table:
            return None
        table = cast(TableFields, mixer)
        space = f".{table.space.replace('_', '-')}" if table.space else ""
        name = f"{model.id}.{table.metric}.k{table.k}{space}"
        spec = NeighborSpec(model=model, metric=table.metric, k=table.k, space=table.space)
        self.neighbors.setdefault(name, spec)
        return name

    def run_id(self, method: str, model: str, seed: int | None = None) -> str | None:
        """The run of a method on a model (with a further seed), under the id that it has; None where no table asks."""
        return self.names.get(asked(_run(self, method, model, seed).json_value()))

    def evaluation_id(
        self, method: str | None, decoding: str, model: str, benchmark: str, seed: int | None = None
    ) -> str | None:
        """The evaluation of a method's run, or of the base model; None where no table asks for it."""
        policy: RunSpec | ModelSpec = self.models[model]
        if method is not None:
            run = self.run_id(method, model, seed)
            if run is None:
                return None
            policy = self.runs[run]
        return self.names.get(asked(_evaluation(self, policy, decoding, benchmark).json_value()))

    def table(self, name: str) -> ResultTable:
        """A table by its id. Raises UserError, with the nearest one, where there is none."""
        if name not in self.study.tables:
            raise unknown_name("table", name, self.study.tables, where="target")
        return self.study.tables[name]

    def wanted(self, *tables: str) -> tuple[str, ...]:
        """The tables that `all`, `demo` or tables' own names stand for. Raises UserError for another word."""
        stands_for = {"all": self.size.tables, "demo": self.size.demo or self.size.tables}
        for word in tables:
            if word not in stands_for and word not in self.cells:
                raise unknown_name("table", word, ("all", "demo", *self.cells), where="--config tables=")
        return tuple(dict.fromkeys(t for word in tables for t in stands_for.get(word, (word,))))

    @cached_property
    def products(self) -> dict[str, Path]:
        """What can be asked for by name, and the file or folder below the results that it is."""
        return {
            **{name: BELOW.model(name).folder for name in self.models},
            **{name: BELOW.neighbors(name).table for name in self.neighbors},
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


def _run(study: Study, method_id: str, model_id: str, seed: int | None = None) -> RunSpec:
    method, size = study.study.methods[method_id], study.size
    where = f"methods.{method_id}"
    training = parse(Training, {**size.training.model_dump(), **method.training}, f"{where}.training")
    parts: dict[str, Any] = {"exploration": method.exploration, "objective": method.objective, "training": training}
    if method.fidelity == "release":
        given = {"exploration": method.exploration, "objective": method.objective, "training": method.training}
        parts = release(parts, given, size.release.get(model_id, {}), where)
    return RunSpec(
        id=f"{method_id}-{model_id}" + (f"-seed{seed}" if seed is not None else ""),
        scale=study.scale,
        model=study.models[model_id],
        data=study.training_data[model_id],
        validation=study.datasets[size.validation],
        validation_decoding=Decoding(mixer=NoMixer(), **size.decoding.model_dump()),
        seed=study.study.seed if seed is None else seed,
        **parts,
    )


def _evaluation(study: Study, policy: RunSpec | ModelSpec, decoding: str, benchmark: str) -> EvaluationSpec:
    return EvaluationSpec(
        scale=study.scale,
        policy=policy,
        decoding_id=decoding,
        decoding=Decoding(mixer=study.study.decodings[decoding].mixer, **study.size.decoding.model_dump()),
        benchmark=study.datasets[benchmark],
        max_prompt_tokens=study.size.training.max_prompt_tokens,
        samples=study.size.evaluation.samples,
        seed=policy.seed if isinstance(policy, RunSpec) else study.study.seed,
        engine=study.size.evaluation.engine,
    )


def _needed(study: Study, names: Names, row: Row, model_id: str, benchmark: str, seed: int | None = None) -> str:
    """Note what a cell (with a further seed) needs, and return its evaluation's id."""
    policy: RunSpec | ModelSpec = study.models[model_id]
    if row.method is not None:
        run = _run(study, row.method, model_id, seed)
        name = _named(study, run, run.id)
        again = f" with seed {seed}" if seed is not None else ""
        names.take(name, asked(run.json_value()), f"the run of method '{row.method}' on model '{model_id}'{again}")
        study.also.update({run.id: name} if run.id != name else {})
        policy = study.runs.setdefault(name, run.model_copy(update={"id": name}))
        study.neighbor_table(policy.exploration, policy.model)
    spec = _evaluation(study, policy, row.decoding, benchmark)
    name = _named(study, spec, f"{policy.id}/{row.decoding}/{benchmark}")
    names.take(name, asked(spec.json_value()), f"the evaluation of '{policy.id}' by decoding '{row.decoding}'")
    study.evaluations.setdefault(name, spec.model_copy(update={"decoding_id": name.split("/")[1]}))
    study.neighbor_table(spec.decoding.mixer, study.models[model_id])
    return name


def _named(study: Study, spec: RunSpec | EvaluationSpec, wanted: str) -> str:
    """The id under which a run or evaluation is made."""
    key = asked(spec.json_value())
    return study.names.setdefault(key, name_of(wanted, study.made.get(key, ())))


def _cell(study: Study, names: Names, row: Row, model_id: str, benchmark: str) -> Cell:
    name = _needed(study, names, row, model_id, benchmark)
    if row.method is not None:
        again = [_needed(study, names, row, model_id, benchmark, seed) for seed in study.size.extra_seeds]
        study.extra_seeds.update({name: again} if again else {})
    return Cell(row.label, model_id, benchmark, name)


def _check_names(study: Study, folder: Path) -> None:
    """Raises UserError where two things of the study have the same name, or would be at the same place."""
    kinds: dict[str, Iterable[str]] = {
        "model": study.models,
        "neighbor table": study.neighbors,
        "run": [*study.runs, *(name for name in study.also if name not in study.runs)],
        "table": study.cells,
        "diagnostics": [f"diagnostics-{name}" for name in study.mixing_runs],
        "target of the scale": study.size.targets,
    }
    check_targets(kinds, study.datasets, folder)
    report = BELOW.report
    owners: dict[str, list[Path]] = {}
    for kind, names, files in (
        ("the data set", study.datasets, BELOW.dataset),
        ("the model", study.models, BELOW.model),
        ("the neighbor table", study.neighbors, BELOW.neighbors),
        ("the run", study.runs, BELOW.run),
        ("the evaluation", study.evaluations, BELOW.evaluation),
    ):
        owners.update({f"{kind} '{name}'": files_of(files(name)) for name in names})
    for name, data in study.training_data.items():
        owners[f"the training problems of model '{name}'"] = files_of(BELOW.training_data(data.dataset.id, name))
    for name in study.cells:
        shown = [report.table(name, kind) for kind in ("html", "tex", "csv")]
        owners[f"the table '{name}'"] = [BELOW.table(name), *shown]
    owners["the list of batches"] = [BELOW.batches]
    owners["the report"] = [report.page, report.claims, report.compliance, *map(report.notebook, NOTEBOOKS)]
    check_files(owners, folder)


def load_study(folder: Path, scale: str, results: Path | None = None) -> Study:
    """Read the configuration folder and expand it at one scale.

    results: results/{scale}, where runs and evaluations that are there keep the names that they were made under.
    """
    study_file, size = load(folder, scale)
    study = Study(scale, study_file, size, folder=folder)
    if (folder / DECIDED_FILE).exists():
        study.names.update(read_json(folder / DECIDED_FILE, Decided)["names"])
    else:
        study.made.update(made_names(results))
    names = Names(folder, {})
    for table_id in size.tables:
        table = study_file.tables[table_id]
        study.cells[table_id] = [
            _cell(study, names, row, model_id, benchmark)
            for model_id in table.models or size.models
            for row in table.rows
            if row.models is None or model_id in row.models
            for benchmark in table.benchmarks or size.benchmarks
        ]
    _check_names(study, folder)
    for target, products in size.targets.items():
        for name in products:
            if name not in study.products:
                raise unknown_name(
                    "table, run, model or neighbor table", name, study.products, where=f"targets.{target}"
                )
    return study
