"""From configuration to jobs: every run and evaluation that the tables need, each once.

Tables name rows; rows name runs and evaluations. Runs with equal specs are one run, under the id of the method that the
tables name first, or under the id that it was made under (`ngrpo.study.naming`); so are evaluations.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.study.cards import Decided
from ngrpo.study.config import ResultTable, Row, load
from ngrpo.study.contents import Contents
from ngrpo.study.elsewhere import file_of, model_of, policy_spec, predictions_spec
from ngrpo.study.layout import Results
from ngrpo.study.mixing import MixerConfig, TableFields
from ngrpo.study.naming import Names, asked, made_names, name_of
from ngrpo.study.predicates import Claim, System, read_claims
from ngrpo.study.products import Cell, Products
from ngrpo.study.seeds import (
    Measured,
    check_scales,
    counted,
    judged,
    logged_by,
    measured_by,
    seeds_of_table,
    seeds_there,
    wanted_by_claims,
)
from ngrpo.study.specs import (
    EvaluationSpec,
    ModelSpec,
    NeighborSpec,
    PolicySpec,
    RunSpec,
)

DEFAULT_FOLDER = "config"
SETTINGS_FILE = "settings.json"  # in a snapshot of a configuration: the settings that Snakemake was started with
DECIDED_FILE = "decided.json"  # in a snapshot of a configuration: the names and batches that its jobs have


@dataclass(frozen=True)
class Study(Products):
    """A study at one scale, expanded. All mappings are in the study's order."""

    extra_seeds: dict[str, list[str]] = field(default_factory=dict)
    """An evaluation of a trained policy: the same with its further training seeds, in their order."""
    extra_runs: dict[str, list[str]] = field(default_factory=dict)
    """A run whose log a claim reads: the same with the further training seeds that the claim asks for."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """An evaluation of a trained policy with the study's own seed: what it measures."""
    names: dict[str, str] = field(default_factory=dict)
    """The digest of what was asked for: the id under which it is made."""
    made: dict[str, list[str]] = field(default_factory=dict)
    """The same of what is there already: the ids under which it was made."""
    name_of: dict[tuple[Any, ...], str] = field(default_factory=dict, repr=False, compare=False)
    """Names of runs and evaluations that were asked for once, by what they are of."""
    contents: dict[str, str] = field(default_factory=dict)
    """What the user's files hold that tables name, by path."""
    folder: Path | None = None
    """The configuration folder."""
    named: Path | None = None
    """The configuration folder as the user named it, where `folder` is a copy that jobs read."""

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
        return self._remembered((method, model, seed), self._run_name)

    def evaluation_id(
        self, method: str | None, decoding: str, model: str, benchmark: str, seed: int | None = None
    ) -> str | None:
        """The evaluation of a method's run, or of the base model; None where no table asks for it."""
        return self._remembered((method, decoding, model, benchmark, seed), self._evaluation_name)

    def evaluation_of(self, system: System, model: str, benchmark: str, seed: int | None = None) -> str | None:
        """The evaluation of a system that a claim names (with a further seed, where it is trained here); None where no
        table asks for it."""
        if system.row is not None:
            return self.from_elsewhere.get((system.row, model, benchmark))
        return self.evaluation_id(system.method, system.decoding, model, benchmark, seed if system.method else None)

    @cached_property
    def from_elsewhere(self) -> dict[tuple[str, str, str], str]:
        """(label, model, benchmark) of the tables' rows that come from elsewhere: their evaluations."""
        cells = [cell for table in self.cells.values() for cell in table]
        return {
            (cell.label, cell.model, cell.benchmark): cell.evaluation
            for cell in reversed(cells)
            if self.evaluations[cell.evaluation].policy.type not in ("run", "model")
        }

    def _remembered(self, key: tuple[Any, ...], name_of_key: Callable[..., str | None]) -> str | None:
        """A name, looked up once: a spec's digest takes milliseconds. One may come while a study is read."""
        if key not in self.name_of and (name := name_of_key(*key)) is not None:
            self.name_of[key] = name
        return self.name_of.get(key)

    def _run_name(self, method: str, model: str, seed: int | None) -> str | None:
        return self.names.get(asked(self.run_spec(method, model, seed).json_value()))

    def _evaluation_name(
        self, method: str | None, decoding: str, model: str, benchmark: str, seed: int | None
    ) -> str | None:
        policy: RunSpec | ModelSpec = self.models[model]
        if method is not None:
            run = self.run_id(method, model, seed)
            if run is None:
                return None
            policy = self.runs[run]
        return self.names.get(asked(self.evaluation_spec(policy, decoding, benchmark).json_value()))

    def seeds_of(self, evaluation: str) -> list[int]:
        """The training seeds of an evaluation of a trained policy: the study's own, and its further ones."""
        return [self.first_seed, *(self.evaluations[name].seed for name in self.extra_seeds.get(evaluation, ()))]

    def common_seeds(self, method: str, decoding: str, model: str, benchmarks: Iterable[str]) -> set[int]:
        """The training seeds that a method comes with on all these benchmarks; the study's own where no table asks for
        one of them."""
        names = [self.evaluation_id(method, decoding, model, benchmark) for benchmark in benchmarks]
        return set.intersection(*(set(self.seeds_of(name)) if name else {self.first_seed} for name in names))

    @cached_property
    def seeds_of_runs(self) -> dict[str, set[int]]:
        """The training seeds of a run that has the study's own: all that an evaluation or a log is asked for."""
        seeds = {name: {self.first_seed} for name, run in self.runs.items() if run.seed == self.first_seed}
        for name in self.extra_seeds:
            seeds[self.evaluations[name].policy.id] |= set(self.seeds_of(name))
        for name, again in self.extra_runs.items():
            seeds[name] |= {self.runs[run].seed for run in again}
        return seeds

    def table(self, name: str) -> ResultTable:
        """A table by its id. Raises UserError, with the nearest one, where there is none."""
        if name not in self.study.tables:
            raise unknown_name("table", name, self.study.tables, where="target")
        return self.study.tables[name]

    def wanted(self, *tables: str) -> tuple[str, ...]:
        """The tables that `all`, `demo` or tables' own names stand for. Raises UserError for another word."""
        everything = tuple(name for name in self.size.tables if name not in self.size.on_request)
        stands_for = {"all": everything, "demo": self.size.demo or everything}
        for word in tables:
            if word not in stands_for and word not in self.cells:
                raise unknown_name("table", word, ("all", "demo", *self.cells), where="--config tables=")
        return tuple(dict.fromkeys(t for word in tables for t in stands_for.get(word, (word,))))


def _needed_run(study: Study, names: Names, method: str, model_id: str, seed: int | None = None) -> RunSpec:
    """Note a run (with a further seed), and return it."""
    run = study.run_spec(method, model_id, seed)
    name = _named(study, run, run.id)
    again = f" with seed {seed}" if seed is not None else ""
    names.take(name, asked(run.json_value()), f"the run of method '{method}' on model '{model_id}'{again}")
    study.also.update({run.id: name} if run.id != name else {})
    policy = study.runs.setdefault(name, run.model_copy(update={"id": name}))
    study.neighbor_table(policy.exploration, policy.model)
    return policy


def _needed(
    study: Study,
    names: Names,
    method: str | None,
    decoding: str,
    model_id: str,
    benchmark: str,
    seed: int | None = None,
) -> str:
    """Note what a cell (with a further seed) needs, and return its evaluation's id."""
    policy: RunSpec | ModelSpec = study.models[model_id]
    if method is not None:
        policy = _needed_run(study, names, method, model_id, seed)
    study.neighbor_table(study.study.decodings[decoding].mixer, study.models[model_id])
    return _noted(study, names, study.evaluation_spec(policy, decoding, benchmark))


def _noted(study: Study, names: Names, spec: EvaluationSpec) -> str:
    """Note an evaluation, and return its id."""
    policy, decoding = spec.policy.id, spec.decoding_id
    name = _named(study, spec, f"{policy}/{decoding}/{spec.benchmark.id}")
    names.take(name, asked(spec.json_value()), f"the evaluation of '{policy}' by decoding '{decoding}'")
    study.evaluations.setdefault(name, spec.model_copy(update={"decoding_id": name.split("/")[1]}))
    return name


def _cells_from_elsewhere(
    study: Study, names: Names, table_id: str, row: Row, model_id: str, contents: Contents
) -> list[Cell]:
    """A row's cells, where it names a policy or predictions from elsewhere: each benchmark's, for one base model."""
    table = study.study.tables[table_id]
    where = f"{study.folder}: tables.{table_id}.rows ({row.label})"
    benchmarks = table.benchmarks or study.size.benchmarks
    cells = []
    for benchmark in benchmarks:
        if row.policy is not None:
            policy = _needed_policy(study, row, model_id, contents, where)
            name = _noted(study, names, study.evaluation_spec(policy, row.decoding, benchmark))
        else:
            file = file_of(row.predictions or {}, benchmark, benchmarks, where)
            spec = study.predicted_spec(predictions_spec(file, contents, where), benchmark)
            name = _noted(study, names, spec)
            study.sources[name] = file
        cells.append(Cell(row.label, model_id, benchmark, name))
    return cells


def _needed_policy(study: Study, row: Row, model_id: str, contents: Contents, where: str) -> PolicySpec:
    """Note the policy from elsewhere that a row names, and return it."""
    assert row.policy is not None, "its row names one"
    mixer = study.study.decodings[row.decoding].mixer
    if row.policy.tokenizer == "own" and mixer.needs_table:
        raise UserError(
            f"decoding '{row.decoding}' mixes neighbors among the base model's tokens, and this policy has its own",
            where=where,
            do="take another decoding, or list the policy among the scale's `models`",
        )
    policy = policy_spec(row.policy, study.models[model_id], contents, where)
    study.neighbor_table(mixer, policy.model)
    if row.policy.folder is not None:
        study.sources[policy.id] = row.policy.folder
    return study.policies.setdefault(policy.id, policy)


def _models_of_row(study: Study, table_id: str, row: Row) -> tuple[str, ...]:
    """The base models for which a row stands."""
    table = study.study.tables[table_id]
    models = tuple(m for m in table.models or study.size.models if row.models is None or m in row.models)
    if row.policy is None:
        return models
    own = model_of(row.policy, models, f"{study.folder}: tables.{table_id}.rows ({row.label})")
    return (own,) if own in models else ()


def _named(study: Study, spec: RunSpec | EvaluationSpec, wanted: str) -> str:
    """The id under which a run or evaluation is made."""
    key = asked(spec.json_value())
    return study.names.setdefault(key, name_of(wanted, study.made.get(key, ())))


def _cells(study: Study, names: Names, table_id: str, row: Row, model_id: str, contents: Contents) -> list[Cell]:
    """A row's cells for a base model: one a benchmark."""
    if row.from_elsewhere:
        return _cells_from_elsewhere(study, names, table_id, row, model_id, contents)
    benchmarks = study.study.tables[table_id].benchmarks or study.size.benchmarks
    return [_cell(study, names, row, model_id, benchmark) for benchmark in benchmarks]


def _cell(study: Study, names: Names, row: Row, model_id: str, benchmark: str) -> Cell:
    name = _needed(study, names, row.method, row.decoding, model_id, benchmark)
    if row.method is not None:
        study.measured.setdefault(name, Measured(row.method, row.decoding, model_id, benchmark))
    return Cell(row.label, model_id, benchmark, name)


def _add_seeds(study: Study, names: Names, evaluation: str, seeds: Iterable[int], *, asked_for: bool = True) -> None:
    """Note an evaluation's further seeds. asked_for: whether it comes with them; else they only may be asked for."""
    what = study.measured[evaluation]
    again = [
        _needed(study, names, what.method, what.decoding, what.model, what.benchmark, seed) for seed in sorted(seeds)
    ]
    if asked_for and again:
        known = {*again, *study.extra_seeds.get(evaluation, ())}
        study.extra_seeds[evaluation] = sorted(known, key=lambda name: study.evaluations[name].seed)


def _add_claims_seeds(study: Study, names: Names, claim: Claim, number: int, *, asked_for: bool = True) -> None:
    """Note the further seeds of what a claim compares or reads, as far as some table measures it."""
    seeds, model = counted(study.first_seed, number), claim.test.model
    for what in measured_by(claim) if model in study.models else ():
        known = what.benchmark in study.datasets and what.method in study.study.methods
        name = study.evaluation_id(what.method, what.decoding, model, what.benchmark) if known else None
        if name is not None:
            _add_seeds(study, names, name, seeds, asked_for=asked_for)
    for method in logged_by(claim) if model in study.models else ():
        run = study.run_id(method, model) if method in study.study.methods else None
        if run is not None:
            again = [_needed_run(study, names, method, model, seed).id for seed in seeds]
            study.extra_runs.update({run: again} if asked_for else {})


def _seeds_there(study: Study, results: Results) -> dict[str, list[int]]:
    """An evaluation: the further seeds for which its grades are there, whoever asked for them."""
    there: dict[str, list[int]] = {}
    for seed in seeds_there(results):
        for name, what in study.measured.items():
            spec = study.evaluation_spec(study.run_spec(what.method, what.model, seed), what.decoding, what.benchmark)
            made = study.made.get(asked(spec.json_value()), ())
            if seed > study.first_seed and any(results.evaluation(one).grades.exists() for one in made):
                there.setdefault(name, []).append(seed)
    return there


def _expand_seeds(
    study: Study, names: Names, decided: Decided, results: Path | None, growing: Mapping[str, int | None]
) -> None:
    """Note every further seed: of tables, of claims, those that are there, and those that a claim may get."""
    for table, cells in study.cells.items():
        seeds = counted(study.first_seed, seeds_of_table(table, study.study, study.size))
        for name in dict.fromkeys(cell.evaluation for cell in cells if cell.evaluation in study.measured):
            _add_seeds(study, names, name, seeds)
    folder = study.folder or Path()
    claims = read_claims(folder)
    check_scales(claims.items(), folder)
    for claim, number in wanted_by_claims(claims.items(), study.scale, study.size, folder):
        _add_claims_seeds(study, names, claim, number)
    there = _seeds_there(study, Results(results)) if results else {}
    for name, known in (*decided["seeds"].items(), *there.items()):
        if name in study.measured:
            _add_seeds(study, names, name, known)
    for name, most in growing.items():
        if name in claims and judged(claims[name], study.scale, study.size):
            _add_claims_seeds(study, names, claims[name], most or study.size.max_seeds, asked_for=False)


def _named_folder(folder: Path) -> Path:
    settings = folder / SETTINGS_FILE
    return Path(read_json(settings, dict).get("config", DEFAULT_FOLDER)) if settings.exists() else folder


def load_study(
    folder: Path, scale: str, results: Path | None = None, growing: Mapping[str, int | None] | None = None
) -> Study:
    """Read the configuration folder and expand it at one scale.

    results: results/{scale}, where runs and evaluations that are there keep the names that they were made under, and
    further seeds that are there count, whoever asked for them. growing: claims that are being decided, and up to how
    many training seeds (None: as many as the scale allows).
    """
    study_file, size = load(folder, scale)
    study = Study(scale, study_file, size, folder=folder, named=_named_folder(folder))
    decided: Decided = {"names": {}, "seeds": {}, "growing": {}, "contents": {}}
    if (folder / DECIDED_FILE).exists():
        decided = {**decided, **read_json(folder / DECIDED_FILE, Decided)}
    study.names.update(decided["names"])
    study.made.update(made_names(results))
    names, contents = Names(folder, {}), Contents(decided.get("contents", {}), Results(results) if results else None)
    for table_id in size.tables:
        table = study_file.tables[table_id]
        study.cells[table_id] = [
            cell
            for model_id in table.models or size.models
            for row in table.rows
            if model_id in _models_of_row(study, table_id, row)
            for cell in _cells(study, names, table_id, row, model_id, contents)
        ]
    study.contents.update(contents.known)
    _expand_seeds(study, names, decided, results, growing or {})
    study.check_names(folder)
    for target, products in size.targets.items():
        for name in products:
            if name not in study.products:
                raise unknown_name(
                    "table, run, model or neighbor table", name, study.products, where=f"targets.{target}"
                )
    return study
