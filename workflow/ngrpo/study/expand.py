"""From configuration to jobs: every run and evaluation that the tables need, each once.

Tables name rows; rows name runs and evaluations. Runs with equal specs are one run, under the id of the method that
comes first in the study; so are evaluations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import digest, write_json
from ngrpo.study.config import ResultTable, Row, ScaleFile, StudyFile, load
from ngrpo.study.layout import Results
from ngrpo.study.mixing import MixerConfig, NoMixer, TableFields
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
)
from ngrpo.study.switches import release

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
        return self.names.get(_asked(_run(self, method, model, seed)))

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
        return self.names.get(_asked(_evaluation(self, policy, decoding, benchmark)))

    def table(self, name: str) -> ResultTable:
        """A table by its id. Raises UserError, with the nearest one, where there is none."""
        if name not in self.study.tables:
            raise unknown_name("table", name, self.study.tables, where="target")
        return self.study.tables[name]

    def wanted(self, tables: str) -> tuple[str, ...]:
        """The tables that `all`, `demo` or a table's own name stands for. Raises UserError for another word."""
        if tables == "all":
            return self.size.tables
        if tables == "demo":
            return self.size.demo or self.size.tables
        if tables not in self.cells:
            raise unknown_name("table", tables, ("all", "demo", *self.cells), where="--config tables=")
        return (tables,)

    @cached_property
    def products(self) -> dict[str, Path]:
        """What can be asked for by name, and the file or folder below the results that it is."""
        return {
            **{name: BELOW.model(name).folder for name in self.models},
            **{name: BELOW.neighbors(name).table for name in self.neighbors},
            **{name: BELOW.run(name).model for name in self.runs},
            **{name: BELOW.table(name) for name in self.cells},
            **{f"diagnostics-{name}": BELOW.diagnostics(name) for name in self.mixing_runs},
        }

    @cached_property
    def mixing_runs(self) -> list[str]:
        """For each model the first run that mixes neighbors: the one whose diagnostics are shown."""
        first = {spec.model.id: name for name, spec in reversed(self.runs.items()) if spec.exploration.needs_table}
        return [name for name in self.runs if name in first.values()]

    def folder_files(self, data_folder: str | None) -> dict[str, Path]:
        """The user's file of every data set of kind `folder`. Raises UserError where folder or file is missing."""
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
            if not files[name].is_file():
                raise UserError(f"the file of data set '{name}' isn't in your data folder", where=files[name])
        return files

    def specs(self) -> dict[str, Spec]:
        """Every spec by the path of its file, relative to the scale's results."""
        files = {
            **{BELOW.dataset(i).spec: s for i, s in self.datasets.items()},
            **{BELOW.training_data(s.dataset.id, i).spec: s for i, s in self.training_data.items()},
            **{BELOW.model(i).spec: s for i, s in self.models.items()},
            **{BELOW.neighbors(i).spec: s for i, s in self.neighbors.items()},
            **{BELOW.run(i).spec: s for i, s in self.runs.items()},
            **{BELOW.evaluation(i).spec: s for i, s in self.evaluations.items()},
        }
        return {path.as_posix(): spec for path, spec in files.items()}

    def write_specs(self, results: Path) -> None:
        """Write every spec file that is missing or differs; an unchanged spec's file is left untouched."""
        for name, spec in self.specs().items():
            path = results / name
            if not path.exists() or path.read_text(encoding="utf-8") != spec.text():
                write_json(path, spec.json_value())


def _asked(spec: RunSpec | EvaluationSpec) -> str:
    """A spec's digest without the id that it was asked for under: equal ones are one job."""
    return digest({**spec.json_value(), "id" if isinstance(spec, RunSpec) else "decoding_id": ""})


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


def _needed(study: Study, row: Row, model_id: str, benchmark: str, seed: int | None = None) -> str:
    """Note what a cell (with a further seed) needs, and return its evaluation's id."""
    policy: RunSpec | ModelSpec = study.models[model_id]
    if row.method is not None:
        run = _run(study, row.method, model_id, seed)
        policy = study.runs.setdefault(study.names.setdefault(_asked(run), run.id), run)
        study.neighbor_table(policy.exploration, policy.model)
    spec = _evaluation(study, policy, row.decoding, benchmark)
    name = study.names.setdefault(_asked(spec), f"{policy.id}/{row.decoding}/{benchmark}")
    study.evaluations.setdefault(name, spec)
    study.neighbor_table(spec.decoding.mixer, study.models[model_id])
    return name


def _cell(study: Study, row: Row, model_id: str, benchmark: str) -> Cell:
    name = _needed(study, row, model_id, benchmark)
    if row.method is not None:
        again = [_needed(study, row, model_id, benchmark, seed) for seed in study.size.extra_seeds]
        study.extra_seeds.update({name: again} if again else {})
    return Cell(row.label, model_id, benchmark, name)


def _check_names(study: Study, folder: Path) -> None:
    """Raises UserError where two things that can be asked for by name have the same one."""
    named: dict[str, str] = {}
    kinds: dict[str, Mapping[str, object]] = {
        "model": study.models,
        "neighbor table": study.neighbors,
        "run": study.runs,
        "table": study.cells,
    }
    for kind, names in kinds.items():
        for name in names:
            if (other := named.setdefault(name, kind)) != kind:
                raise UserError(
                    f"a {other} and a {kind} are both called '{name}'", where=folder, do="rename one of them"
                )


def load_study(folder: Path, scale: str) -> Study:
    """Read the configuration folder and expand it at one scale."""
    study_file, size = load(folder, scale)
    study = Study(scale, study_file, size, folder=folder)
    for table_id in dict.fromkeys((*size.tables, *(size.demo or ()))):
        table = study_file.tables[table_id]
        study.cells[table_id] = [
            _cell(study, row, model_id, benchmark)
            for model_id in table.models or size.models
            for row in table.rows
            if row.models is None or model_id in row.models
            for benchmark in table.benchmarks or size.benchmarks
        ]
    _check_names(study, folder)
    for target, names in size.targets.items():
        for name in names:
            if name not in study.products:
                raise unknown_name(
                    "table, run, model or neighbor table", name, study.products, where=f"targets.{target}"
                )
    return study
