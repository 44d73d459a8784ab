"""The configuration files as frozen models: config/study.yaml (the matrix) and config/scales/{scale}.yaml (its size).

`load` reads both and checks names across them; every mistake is a UserError with file, key and the nearest valid name.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.errors import UserError, unknown_name
from ngrpo.hub import is_commit
from ngrpo.study.base import Config, Id, Seeds, Shown
from ngrpo.study.elsewhere import Policy, Predictions
from ngrpo.study.engines import EngineName
from ngrpo.study.mixing import DecodingMixer, NoMixer, TrainingMixer
from ngrpo.study.objective import Objective
from ngrpo.study.reading import read_yaml
from ngrpo.study.sources import Dataset, HubDataset, HubModel, Model
from ngrpo.study.specs import Training


class Method(Config):
    """One training system: objective × exploration."""

    title: Shown
    """How tables name it."""
    objective: Objective = Objective()
    """What training minimizes."""
    exploration: TrainingMixer = NoMixer()
    """The input mixer of training's rollouts."""
    fidelity: Literal["paper", "release"] = "paper"
    """Where paper and released code differ, whom this method follows; what it sets itself stays as it is set."""
    training: dict[str, float | int | str] = Field(default_factory=dict)
    """Hyperparameters in which this method departs from its scale's `training`."""


class DecodingMethod(Config):
    """One way to decode; temperature and lengths come from the scale."""

    title: Shown
    """How tables name it."""
    mixer: DecodingMixer = NoMixer()
    """The input mixer of decoding."""


class Row(Config):
    """One system of a table, for each of its models: a method's run, a policy or samples from elsewhere, or, where none
    of these is named, the base model."""

    label: Shown
    """How the table names the system."""
    method: Id | None = None
    """The training system; None: the base model."""
    policy: Policy | None = None
    """A policy that was trained elsewhere."""
    predictions: Predictions | None = None
    """Samples that were drawn elsewhere: a .jsonl file with rows of problem_id, sample and response, or one by
    benchmark."""
    decoding: Id = "standard"
    """How its answers are drawn."""
    models: tuple[Id, ...] | None = None
    """None: every model of the table."""

    @property
    def from_elsewhere(self) -> bool:
        """Whether its policy was trained, or its samples were drawn, elsewhere."""
        return self.policy is not None or self.predictions is not None

    @model_validator(mode="after")
    def _is_one_system(self) -> "Row":
        given = [name for name in ("method", "policy", "predictions") if getattr(self, name) is not None]
        if len(given) > 1:
            raise PydanticCustomError("row", "a row is one system: {names} are two", {"names": " and ".join(given)})
        if self.predictions is not None and self.decoding != "standard":
            raise PydanticCustomError("row", "samples that are there aren't decoded: leave `decoding` out")
        return self


class ResultTable(Config):
    """Rows (systems) × benchmarks × metrics, for one or more models."""

    title: Shown
    """The table's heading."""
    rows: tuple[Row, ...] = Field(min_length=1)
    """The systems, in the table's order."""
    models: tuple[Id, ...] | None = None
    """None: every model of the scale."""
    benchmarks: tuple[Id, ...] | None = None
    """None: every benchmark of the scale."""
    seeds: Seeds | None = None
    """Training seeds of its trained policies, at every scale that has no `table_seeds` for it; None: the scale's."""


class Paper(Config):
    """The paper that a study checks."""

    name: Shown
    """In a few words: what the report is headed with."""
    title: Shown
    """As it is printed."""
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")
    """Its number at arXiv."""


N_GRPO = Paper(
    name="N-GRPO",
    title="N-GRPO: Embedding-Level Neighbor Mixing for Enhanced Policy Optimization",
    arxiv="2606.10768",
)


class StudyFile(Config):
    """config/study.yaml: what is compared, at any scale."""

    paper: Paper = N_GRPO
    """Which paper's claims are checked; parts of the report that are about N-GRPO's alone are left out of others'."""
    seed: int = 1
    """Root of every random stream, and the first training seed; further ones are the numbers after it."""
    methods: dict[Id, Method]
    """Training systems by their ids; a run's id is method-model."""
    decodings: dict[Id, DecodingMethod]
    """Ways to decode by their ids; a table's row takes `standard` where it names none."""
    tables: dict[Id, ResultTable]
    """What is shown side by side; a scale makes those that it lists."""


class Limits(Config):
    """Decoding limits shared by a scale's evaluations (paper §4.1)."""

    temperature: float = Field(0.6, gt=0)
    """τ of sampling."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Share of probability that tokens are drawn from; 1: of all."""
    max_new_tokens: int = Field(8192, ge=1)
    """Tokens after which an answer is cut (graded as truncated)."""


class Evaluation(Config):
    """How policies are measured."""

    samples: int = Field(32, ge=1)
    """n, samples a problem."""
    pass_at: tuple[Annotated[int, Field(ge=1)], ...] = (16, 32)
    """The k of Pass@k; none above n."""
    engine: EngineName = "sglang"
    """Who samples: sglang everywhere; transformers only where sglang can't run."""


class Grading(Config):
    """How a benchmark's answers are graded where not as in the paper: options of `ngrpo grade` (docs/grading.md)."""

    convention: Literal["paper", "math-verify", "release-math500", "release-gpqa", "second"] = "paper"
    """Whose rules: the paper's, Math-Verify's own extraction, the released code's, or the second grader's."""
    tolerance: float | None = Field(None, gt=0, lt=1)
    """Numbers that differ by so large a share of the reference are equal, too, such as 0.01; None: none."""
    sets_equal_relations: bool = False
    """Whether a reference that is a set equals an answer that is a relation."""
    letters: str | None = Field(None, pattern="^ABC?D?E?F?G?H?I?J?$")
    """Letters that a choice may have, such as ABCDEF; None: A to D."""
    seconds: float = Field(5.0, gt=0)
    """Processor time of one comparison, in seconds."""

    def options(self) -> str:
        """These settings as options of the command; those that are not set are left out."""
        words = [f"--convention {self.convention}"] if self.convention != "paper" else []
        words += [f"--tolerance {self.tolerance:g}"] if self.tolerance is not None else []
        words += ["--sets-equal-relations"] if self.sets_equal_relations else []
        words += [f"--letters {self.letters}"] if self.letters is not None else []
        words += [f"--seconds {self.seconds:g}"] if self.seconds != type(self).model_fields["seconds"].default else []
        return " ".join(words)


class ScaleFile(Config):
    """config/scales/{scale}.yaml: models, data, hyperparameters and sizes."""

    title: Shown
    """How the report names the scale."""
    verdicts: bool
    """Whether its cells count as evidence about the paper; toy and smoke cells never do."""
    models: dict[Id, Model] = Field(min_length=1)
    """Base models by their ids."""
    datasets: dict[Id, Dataset]
    """Data sets by their ids."""
    training_data: Id
    """The data set to train on."""
    validation: Id
    """The data set that chooses checkpoints; nothing else is measured on it."""
    benchmarks: tuple[Id, ...] = Field(min_length=1)
    """The data sets of tables that name none."""
    near_duplicates: float | None = Field(None, gt=0, le=1)
    """Similarity to a benchmark's problem from which a training problem is left out, 0 to 1, such as 0.7. None: only
    equal problems are left out, as nearly all of the paper's training set stays; the card counts and names those of
    0.7 and more."""
    training: Training
    """Hyperparameters of every run; a method may set its own."""
    decoding: Limits
    """Of every evaluation and of validation."""
    evaluation: Evaluation
    """How policies are measured."""
    grading: dict[Id, Grading] = Field(default_factory=dict)
    """By benchmark: how its answers are graded where not as in the paper."""
    tables: tuple[Id, ...] = Field(min_length=1)
    """What this scale makes, all together or by name."""
    on_request: tuple[Id, ...] = ()
    """Tables that `all` leaves out: they are made when they are asked by name."""
    demo: tuple[Id, ...] | None = None
    """What `demo` makes; None: the same as `all`."""
    targets: dict[Id, tuple[Id, ...]] = Field(default_factory=dict)
    """Further targets: other names for tables, runs, base models or neighbor tables, one or several."""
    release: dict[Id, dict[Literal["exploration", "objective", "training"], dict[str, float | int]]] = Field(
        default_factory=dict
    )
    """Values that the released N-GRPO scripts set for one model, used by methods of `fidelity: release` that mix
    neighbors: the released GRPO scripts keep the paper's."""
    seeds: Seeds = 1
    """Training seeds: every run is trained and evaluated with each. With one the report gives no verdict on a trained
    policy; a study's cost grows with each. A table (`table_seeds`, or `seeds` in study.yaml) and a claim (`seeds` in
    claims.yaml) may have their own; a policy that several ask for gets the most. Another one trains nothing again."""
    table_seeds: dict[Id, Seeds] = Field(default_factory=dict)
    """By table: its training seeds at this scale."""
    max_seeds: Seeds = 20
    """Training seeds beyond which nothing goes: no table or claim may ask for more, and `snakemake decide-…` stops
    there. `--config max_seeds=` sets another number for one start."""
    threads: int = Field(1, ge=1)
    """CPU threads of a training or sampling job; with as many cores as one job takes, jobs follow one another."""
    checkpoint_every: int = Field(10, ge=1)
    """Steps between checkpoints; changes no result."""
    keep_checkpoints: bool = False
    """Keep the last two checkpoints of a finished run, 12 bytes a parameter each. Its best policy stays in any case.
    Changes no result."""
    shard_samples: int = Field(512, ge=1)
    """Samples that an evaluation draws at once and that a kill can cost; changes no result. An engine runs half empty
    while it waits for a shard's longest answers: the larger, the fewer such waits."""


def _each_once(listed: Sequence[object], where: object) -> None:
    """Raises UserError where something is listed twice."""
    twice = [one for place, one in enumerate(listed) if one in listed[:place]]
    if twice:
        raise UserError(f"{twice[0]!r} is listed twice", where=where, do="keep it once")


def _check_rows(table: ResultTable, where: str) -> None:
    """Raises UserError where a model would have two systems of one label, or something is listed twice."""
    _each_once(table.models or (), f"{where}.models")
    _each_once(table.benchmarks or (), f"{where}.benchmarks")
    for place, row in enumerate(table.rows):
        _each_once(row.models or (), f"{where}.rows ({row.label}).models")
        for other in table.rows[:place]:
            shared = row.models is None or other.models is None or set(row.models) & set(other.models)
            if row.label.strip() == other.label.strip() and shared:
                raise UserError(
                    f"two rows are labeled '{row.label}': a reader couldn't tell them apart",
                    where=f"{where}.rows",
                    do="give one of them another label",
                )


def _known(kind: str, name: str, names: Collection[str], where: object) -> None:
    """Raises UserError, with the nearest one, for a name that isn't there."""
    if name not in names:
        raise unknown_name(kind, name, names, where=where)


def _check_table(table: ResultTable, where: str, study: StudyFile, size: ScaleFile | None) -> None:
    """Raises UserError where a table names what isn't there. size: the scale that makes it, if one does."""
    _check_rows(table, where)
    for row in table.rows:
        if row.method is not None:
            _known("method", row.method, study.methods, f"{where}.rows ({row.label})")
        _known("decoding", row.decoding, study.decodings, f"{where}.rows ({row.label})")
    if size is not None:
        _check_at_scale(table, where, size)


def _check_at_scale(table: ResultTable, where: str, size: ScaleFile) -> None:
    """Raises UserError where a table names a model or data set that its scale doesn't have."""
    models = table.models or tuple(size.models)
    for name in models:
        _known("model", name, size.models, f"{where}.models")
    for name in table.benchmarks or ():
        _known("data set", name, size.datasets, f"{where}.benchmarks")
    for row in table.rows:
        at = f"{where}.rows ({row.label})"
        for name in row.models or ():
            _known("model", name, models, f"{at}.models")
        if row.policy is not None and row.policy.base is not None:
            _known("model", row.policy.base, row.models or models, f"{at}.policy.base")
        for name in row.predictions if isinstance(row.predictions, dict) else ():
            _known("data set", name, size.datasets, f"{at}.predictions")


def load(folder: Path, scale: str) -> tuple[StudyFile, ScaleFile]:
    """Read and cross-check the study at one scale.

    Raises UserError for an unknown scale, method, decoding, table, data set or model, and for k above n.
    """
    if not (folder / "scales").is_dir():
        raise UserError(
            f"there is no configuration in '{folder}'",
            where=Path.cwd(),
            do="start in the project's folder, or name the configuration's with config=PATH",
        )
    scales = {p.stem: p for p in sorted((folder / "scales").glob("*.yaml"))}
    if scale not in scales:
        raise unknown_name("scale", scale, scales, where="--config scale=")
    study, size = read_yaml(StudyFile, folder / "study.yaml"), read_yaml(ScaleFile, scales[scale])
    at, here = folder / "study.yaml", scales[scale]

    for key, listed in (("benchmarks", size.benchmarks), ("tables", size.tables), ("demo", size.demo or ())):
        _each_once(listed, f"{here}: {key}")
    _each_once(size.evaluation.pass_at, f"{here}: evaluation.pass_at")
    for key in ("training_data", "validation"):
        _known("data set", getattr(size, key), size.datasets, f"{here}: {key}")
    for name in size.benchmarks:
        _known("data set", name, size.datasets, f"{here}: benchmarks")
    _check_training_data(study, size, here)
    for name in size.grading:
        _known("data set", name, size.datasets, f"{here}: grading")
    _check_revisions(size, here)
    for name in size.tables:
        _known("table", name, study.tables, f"{here}: tables")
    for name in size.on_request:
        _known("table", name, study.tables, f"{here}: on_request")
    for name in size.demo or ():
        _known("table", name, size.tables, f"{here}: demo")
    for method_id, method in study.methods.items():
        for key in method.training:
            _known("training setting", key, Training.model_fields, f"{at}: methods.{method_id}.training")
    for table_id, table in study.tables.items():
        _check_table(table, f"{at}: tables.{table_id}", study, size if table_id in size.tables else None)
    for name in size.table_seeds:
        _known("table", name, study.tables, f"{here}: table_seeds")
    check_seeds(size.seeds, size, f"{here}: seeds")
    for name in size.tables:
        check_seeds(size.table_seeds.get(name), size, f"{here}: table_seeds.{name}")
        check_seeds(study.tables[name].seeds, size, f"{at}: tables.{name}.seeds")
    too_many = [k for k in size.evaluation.pass_at if k > size.evaluation.samples]
    if too_many:
        raise UserError(
            f"Pass@{too_many[0]} needs at least {too_many[0]} samples a problem, there are {size.evaluation.samples}",
            where=f"{here}: evaluation.pass_at",
            do="raise evaluation.samples or drop that k",
        )
    return study, size


def _check_training_data(study: StudyFile, size: ScaleFile, here: Path) -> None:
    """Raises UserError where the problems to train on are asked, too: all of them would be left out of training."""
    tables = {f"{name}.benchmarks": study.tables[name].benchmarks or () for name in size.tables if name in study.tables}
    for key, names in {"validation": (size.validation,), "benchmarks": size.benchmarks, **tables}.items():
        if size.training_data in names:
            raise UserError(
                f"'{size.training_data}' is trained on and asked ({key}): what is asked leaves the training data",
                where=f"{here}: training_data",
                do="name another data set",
            )


def check_seeds(asked: int | None, size: ScaleFile, where: object) -> None:
    """Raises UserError where more training seeds are asked for than the scale allows."""
    if asked is not None and asked > size.max_seeds:
        raise UserError(
            f"{asked} training seeds are asked for, and the scale's max_seeds is {size.max_seeds}",
            where=where,
            do="ask for fewer, or raise max_seeds in the scale's file",
        )


def _check_revisions(size: ScaleFile, here: Path) -> None:
    """Raise UserError where a scale that gives verdicts names a branch or tag of the hub: its bytes can change."""
    sources = {
        **{f"models.{name}": model.source for name, model in size.models.items()},
        **{f"datasets.{name}": dataset.source for name, dataset in size.datasets.items()},
    }
    for key, source in sources.items():
        if size.verdicts and isinstance(source, HubModel | HubDataset) and not is_commit(source.revision):
            raise UserError(
                f"the revision '{source.revision}' isn't a commit, and this scale gives verdicts",
                where=f"{here}: {key}.source.revision",
                do="name a commit of 40 hexadecimal digits: the hub shows it under Files and versions, History",
            )
