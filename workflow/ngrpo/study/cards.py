"""The cards of a study: small JSON files that stages write beside what they made, as every reader takes them.

`ngrpo.files.read_json(path, DataCard)` checks a card's keys and types; further keys stay.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, with_config
from typing_extensions import TypedDict

OPEN = ConfigDict(extra="allow", strict=False)


def id_digest(ids: Iterable[str]) -> str:
    """SHA-256 of a set of problems' ids: which problems they are, in any order."""
    return hashlib.sha256("\n".join(sorted(set(ids))).encode()).hexdigest()


@with_config(OPEN)
class DataCard(TypedDict):
    """Beside a data set: where it came from."""

    spec: str
    rows_in: NonNegativeInt
    rows_out: NonNegativeInt
    asked: NotRequired[str]
    """`id_digest` of the problems that an evaluation asks (all of them, or the first `limit`)."""


@with_config(OPEN)
class ImportedCard(TypedDict):
    """Beside imported curves: where they came from."""

    name: str
    model: str
    """The base model beside whose runs they are drawn."""
    source: str
    """The file's or folder's name."""
    kind: str
    """csv | tensorboard"""
    sha256: str
    """Of the file; of a folder a digest of its event files."""
    columns: dict[str, str]
    """Our curve → the source's column."""
    steps: PositiveInt


@with_config(OPEN)
class SamplesCard(TypedDict):
    """Beside samples: whose spec they were drawn for; their counts."""

    spec: str
    problems: NonNegativeInt
    sampled: NonNegativeInt
    overlong_prompts: dict[str, int]
    samples: NonNegativeInt
    tokens: NotRequired[NonNegativeInt]


@with_config(OPEN)
class SamplesTime(TypedDict):
    """What drawing samples took, and on what."""

    seconds: float
    devices: PositiveInt
    gpu: bool
    hardware: NotRequired[dict[str, Any]]


@with_config(OPEN)
class ModelCard(TypedDict):
    """In a model's folder: whose spec it was made for."""

    spec: str


@with_config(OPEN)
class TrainedCard(ModelCard):
    """A trained policy's card: its step and validation score, too.

    ended: why its run is finished before its last step; equals_base: whether its weights are the base model's.
    """

    step: NonNegativeInt
    score: float
    ended: NotRequired[str]
    equals_base: NotRequired[bool]


@with_config(OPEN)
class FailureCard(TypedDict):
    """In a run's folder: what was no finite number at which step, and for which spec."""

    spec: str
    step: NonNegativeInt
    what: str


@with_config(OPEN)
class JobHardware(TypedDict):
    """One job of a training, in its hardware.json."""

    after_step: NonNegativeInt
    kind: str


@with_config(OPEN)
class TrainerSettings(TypedDict):
    """Of verl's settings: what it trained on."""

    n_gpus_per_node: NotRequired[PositiveInt]
    nnodes: NotRequired[PositiveInt]
    device: NotRequired[str]


@with_config(OPEN)
class VerlSettings(TypedDict):
    """verl's resolved settings, as its trainer held them when training started."""

    trainer: NotRequired[TrainerSettings]


@with_config(OPEN)
class Decided(TypedDict):
    """Of a snapshot of a configuration: digest of what was asked for → the name that its job has."""

    names: dict[str, str]
    seeds: dict[str, list[int]]
    """An evaluation: its further training seeds."""
    growing: dict[str, int | None]
    """A claim that is being decided: the training seeds that it may get; None: as many as the scale allows."""
    contents: NotRequired[dict[str, str]]
    """What the user's files hold that tables name, by path."""


class VersionGroup(TypedDict):
    """Versions that a page shows under one title: (name, version)."""

    title: str
    rows: list[tuple[str, str]]


@with_config(OPEN)
class MixedStep(TypedDict):
    """One mixed step of a diagnosed response."""

    index: NonNegativeInt
    candidates: list[tuple[str, float]]
    cosine: float


@with_config(OPEN)
class MixedExample(TypedDict):
    """One problem's responses without and with mixing, as tokens."""

    problem_id: str
    problem: str
    without: list[str]
    mixed: list[str]
    apart: int | None
    steps: list[MixedStep]


@with_config(OPEN)
class MixedToken(TypedDict):
    """A token that was mixed often, on the two main axes of its neighborhood."""

    token: str
    at: tuple[float, float]
    mixtures: list[tuple[float, float]]
    mixture_cosines: list[float]
    noise: list[tuple[float, float]]
    noise_cosines: list[float]
    noise_nearest: NotRequired[list[tuple[str, float, float]]]
    """For every noisy vector the nearest token and where it lies; older files have none."""
    noise_flips: NotRequired[float]
    mixture_flips: NotRequired[float]


@with_config(OPEN)
class TokenNeighbors(TypedDict):
    """A token and its neighbors with their cosines, nearest first."""

    token: str
    neighbors: list[tuple[str, float]]


@with_config(OPEN)
class VocabularyNeighbors(TypedDict):
    """How near the neighbors of a whole vocabulary lie."""

    tokens: NonNegativeInt
    quantiles: list[float]
    """5, 25, 50, 75, 95 % of the mean cosine of a token's neighbors; empty where no token has any."""
    examples: list[TokenNeighbors]


@with_config(OPEN)
class Diagnostics(TypedDict):
    """What `ngrpo diagnostics` wrote (`ngrpo.stages.mixing_diagnostics`)."""

    spec: str
    model: str
    rho: float
    k: int
    metric: str
    sigma: float
    explained: list[float]
    examples: Annotated[list[MixedExample], Field(min_length=1)]
    tokens: list[MixedToken]
    neighbors: NotRequired[VocabularyNeighbors]
    """Older files have none."""
