"""The configuration files as frozen models: config/study.yaml (the matrix) and config/scales/{scale}.yaml (its size).

`load` reads both and checks names across them; every mistake is a UserError with file, key and the nearest valid name.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from ngrpo.errors import UserError, nearest_name, unknown_name
from ngrpo.study.base import Config, Id
from ngrpo.study.mixers import Mixer, NoMixer
from ngrpo.study.sources import Dataset, Model
from ngrpo.study.specs import Objective, Training


class Method(Config):
    """One training system: objective × exploration (METHOD §2)."""

    title: str
    """How tables name it."""
    objective: Objective = Objective()
    exploration: Mixer = NoMixer()
    training: dict[str, float | int] = Field(default_factory=dict)
    """Hyperparameters in which this method departs from its scale's `training`."""


class DecodingMethod(Config):
    """One way to decode; temperature and lengths come from the scale."""

    title: str
    mixer: Mixer = NoMixer()


class Row(Config):
    """One system of a table, for each of its models: a method's run, or the base model where no method is named."""

    label: str
    method: Id | None = None
    decoding: Id = "standard"


class Table(Config):
    """Rows (systems) × benchmarks × metrics, for one or more models."""

    title: str
    rows: tuple[Row, ...] = Field(min_length=1)
    models: tuple[Id, ...] | None = None
    """None: every model of the scale."""
    benchmarks: tuple[Id, ...] | None = None
    """None: every benchmark of the scale."""


class StudyFile(Config):
    """config/study.yaml: what is compared, at any scale."""

    seed: int = 1
    """Root of every random stream."""
    methods: dict[Id, Method]
    decodings: dict[Id, DecodingMethod]
    tables: dict[Id, Table]


class Limits(Config):
    """Decoding limits shared by a scale's evaluations (paper §4.1)."""

    temperature: float = Field(0.6, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(8192, ge=1)


class Evaluation(Config):
    """How policies are measured."""

    samples: int = Field(32, ge=1)
    """n, samples a problem."""
    pass_at: tuple[int, ...] = (16, 32)
    """The k of Pass@k; none above n."""
    engine: Literal["sglang", "transformers"] = "sglang"


class ScaleFile(Config):
    """config/scales/{scale}.yaml: models, data, hyperparameters and sizes."""

    title: str
    verdicts: bool
    """Whether its cells count as evidence about the paper; toy and smoke cells never do."""
    models: dict[Id, Model] = Field(min_length=1)
    datasets: dict[Id, Dataset]
    training_data: Id
    validation: Id
    benchmarks: tuple[Id, ...] = Field(min_length=1)
    training: Training
    decoding: Limits
    evaluation: Evaluation
    tables: tuple[Id, ...] = Field(min_length=1)
    """What `all` makes."""
    demo: tuple[Id, ...] | None = None
    """What the target `demo` makes; None: the same as `all`."""
    checkpoint_every: int = Field(10, ge=1)
    """Steps between checkpoints; changes no result."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice in one mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise UserError(
                f"the key '{key}' is given twice",
                where=f"{loader.name}: lines {seen[key]} and {key_node.start_mark.line + 1}",
                do="keep one of them",
            )
        seen[key] = key_node.start_mark.line + 1
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

M = TypeVar("M", bound=BaseModel)


def _fields_at(model: type[BaseModel], location: tuple) -> list[str]:
    """The keys that are valid beside the last part of a validation error's location."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        candidates = [current, *getattr(current, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def parse(model: type[M], value: Any, source: Path | str) -> M:
    """A configuration model from plain data; the first mistake becomes a UserError naming file and key."""
    try:
        return model.model_validate(value)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        do = None
        if first["type"] == "extra_forbidden":
            what = f"unknown key '{first['loc'][-1]}'"
            known = _fields_at(model, first["loc"])
            near = nearest_name(str(first["loc"][-1]), known)
            do = f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}" if known else None
        elif first["type"] == "missing":
            what = f"the key '{first['loc'][-1]}' is missing"
        else:
            what = f"{first['msg'][0].lower()}{first['msg'][1:]}: {first['input']!r:.80}"
        raise UserError(what, where=f"{source}: {key}", do=do) from None


def read_yaml(model: type[M], path: Path) -> M:
    """A configuration file as its model."""
    try:
        with open(path, encoding="utf-8") as f:
            value = yaml.load(f, _Loader)
    except FileNotFoundError:
        raise UserError("there is no such configuration file", where=path) from None
    except yaml.YAMLError as e:
        raise UserError(f"not readable as YAML: {e}", where=path) from None
    return parse(model, value, path)


def load(folder: Path, scale: str) -> tuple[StudyFile, ScaleFile]:
    """Read and cross-check the study at one scale.

    Raises UserError for an unknown scale, method, decoding, table, data set or model, and for k above n.
    """
    scales = {p.stem: p for p in sorted((folder / "scales").glob("*.yaml"))}
    if scale not in scales:
        raise unknown_name("scale", scale, scales, where="--config scale=")
    study, size = read_yaml(StudyFile, folder / "study.yaml"), read_yaml(ScaleFile, scales[scale])
    at, here = folder / "study.yaml", scales[scale]

    def known(kind: str, name: str, names: Any, where: object) -> None:
        if name not in names:
            raise unknown_name(kind, name, names, where=where)

    for key in ("training_data", "validation"):
        known("data set", getattr(size, key), size.datasets, f"{here}: {key}")
    for name in size.benchmarks:
        known("data set", name, size.datasets, f"{here}: benchmarks")
    for name in (*size.tables, *(size.demo or ())):
        known("table", name, study.tables, f"{here}: tables")
    for method_id, method in study.methods.items():
        for key in method.training:
            known("training setting", key, Training.model_fields, f"{at}: methods.{method_id}.training")
    for table_id, table in study.tables.items():
        where = f"{at}: tables.{table_id}"
        for row in table.rows:
            if row.method is not None:
                known("method", row.method, study.methods, f"{where}.rows ({row.label})")
            known("decoding", row.decoding, study.decodings, f"{where}.rows ({row.label})")
        if table_id in (*size.tables, *(size.demo or ())):
            for name in table.models or ():
                known("model", name, size.models, f"{where}.models")
            for name in table.benchmarks or ():
                known("data set", name, size.datasets, f"{where}.benchmarks")
    too_many = [k for k in size.evaluation.pass_at if k > size.evaluation.samples]
    if too_many:
        raise UserError(
            f"Pass@{too_many[0]} needs at least {too_many[0]} samples a problem, there are {size.evaluation.samples}",
            where=f"{here}: evaluation.pass_at",
            do="raise evaluation.samples or drop that k",
        )
    return study, size
