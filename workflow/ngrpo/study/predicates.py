"""The paper's checkable sentences as typed predicates: config/claims.yaml. Evidence: ngrpo.claims.gathering.

A predicate names systems by method and decoding, models, benchmarks and metrics by their ids in study.yaml and
scales/paper.yaml: ngrpo.claims.at_scale checks them, and says what stands in for them at another scale.

| kind | says |
|---|---|
| higher | a system scores higher than each of some others |
| similar | a system scores within a margin of each of some others ("comparable", "insensitive") |
| most | a system is the best of some in so many of the cells benchmark × metric ("best of most") |
| loses-none | what one system solves another solves, too |
| logged | a logged training metric's mean, least or greatest value lies on one side of a limit |
| diagnosed | so does a share that `ngrpo diagnostics` counted (token flips) |
| slowdown | rollouts are slower by no more than a limit |
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.study.base import Config, Id, Seeds, Shown
from ngrpo.study.reading import read_yaml

FILE = "claims.yaml"
PAPER = "paper"
"""The scale whose claims are the paper's."""
Metric = Annotated[str, StringConstraints(pattern=r"^(mean|pass@[1-9][0-9]*)$")]
Points = Annotated[float, Field(gt=0, le=100)]
Estimator = Literal["bootstrap", "unbiased"]
Question = Literal["these benchmarks", "problems like these"]


class System(Config):
    """Who answers how: a method's run (None: the base model) under a decoding; or a table's row from elsewhere."""

    method: Id | None = None
    """The training system; None: the base model."""
    decoding: Id = "standard"
    """How its answers are drawn."""
    row: Shown | None = None
    """The label of a table's row whose policy was trained, or whose samples were drawn, elsewhere; instead of the other
    two. What another run of its training would give isn't known, and no interval says it."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "System":
        if self.row is not None and (self.method is not None or self.decoding != "standard"):
            raise PydanticCustomError("system", "name a `row` alone, or a method and a decoding")
        return self


class _Measured(Config):
    """What comparisons of evaluations share."""

    model: Id
    """The base model."""
    system: System
    """Who is compared."""
    benchmarks: tuple[Id, ...] = Field(min_length=1)
    """Averaged with equal weights, or looked at one by one, as the kind and `each` say."""
    estimator: Estimator = "bootstrap"
    """Of Pass@k: the paper's numbers come from the bootstrap. The other one is shown beside it."""

    @property
    def others(self) -> tuple[System, ...]:
        """Whom the system is compared with."""
        return ()

    @model_validator(mode="after")
    def _different_systems(self) -> "_Measured":
        if self.system in self.others:
            raise ValueError("the system is compared with itself")
        return self


class _OneMetric(_Measured):
    metric: Metric
    """`mean`, or `pass@K`."""
    each: bool = False
    """Whether every benchmark must show it; else their average must."""

    @property
    def groups(self) -> list[tuple[Id, ...]]:
        """The benchmarks that are averaged together, one group after another."""
        return [(b,) for b in self.benchmarks] if self.each else [self.benchmarks]


class Higher(_OneMetric):
    """`system` scores higher than each of `than`, on the average of the benchmarks or on each of them."""

    kind: Literal["higher"]
    than: tuple[System, ...] = Field(min_length=1)
    """Whom it must be above, each of them."""
    paper: tuple[Points, ...]
    """The paper's differences, in points, one for each of `than` (where `each` is set: of the first benchmark, then of
    the next): what a study must be able to see. At another scale than the paper's: what its claim is about."""

    @property
    def others(self) -> tuple[System, ...]:
        """Whom the system is compared with."""
        return self.than

    @model_validator(mode="after")
    def _one_each(self) -> "Higher":
        wanted = len(self.than) * len(self.groups)
        if len(self.paper) != wanted:
            many = f"than has {len(self.than)} systems" + (f" on {len(self.groups)} benchmarks" if self.each else "")
            raise ValueError(f"paper has {len(self.paper)} differences, {many}")
        return self

    def comparisons(self) -> Iterator[tuple[System, tuple[Id, ...], float]]:
        """(the other system, benchmarks averaged, the paper's difference in points) of all that must hold."""
        pairs = [(other, group) for group in self.groups for other in self.than]
        for (other, group), points in zip(pairs, self.paper, strict=True):
            yield other, group, points


class _Drawn(Config):
    """A limit that somebody drew."""

    whose: Literal["paper", "ours"]
    """Who drew the limit: the paper states it, or it is our reading."""
    why: str = Field(min_length=1)
    """Why it lies there."""


class Similar(_OneMetric, _Drawn):
    """`system` scores within a margin of each of `to`, on the average of the benchmarks or on each of them."""

    kind: Literal["similar"]
    to: tuple[System, ...] = Field(min_length=1)
    """Whom it must be close to, each of them."""
    within: Points
    """The margin in points, to both sides."""

    @property
    def others(self) -> tuple[System, ...]:
        """Whom the system is compared with."""
        return self.to

    def comparisons(self) -> Iterator[tuple[System, tuple[Id, ...], float]]:
        """(the other system, benchmarks averaged, the margin in points) of all that must hold."""
        for group in self.groups:
            for other in self.to:
                yield other, group, self.within


class Most(_Measured, _Drawn):
    """`system` scores higher than each of `than` in at least so many of the cells benchmark × metric."""

    kind: Literal["most"]
    than: tuple[System, ...] = Field(min_length=1)
    """Whom it must be above in a cell, each of them."""
    metrics: tuple[Metric, ...] = Field(min_length=1)
    """`mean`, or `pass@K`."""
    at_least: int = Field(ge=1)
    """Cells in which it must be the best."""
    lead: Points
    """The lead in points that a study must be able to see in a cell."""
    paper: int = Field(ge=0)
    """Cells in which the paper's numbers have it as the best."""

    @property
    def others(self) -> tuple[System, ...]:
        """Whom the system is compared with."""
        return self.than

    @property
    def cells(self) -> list[tuple[Id, Metric]]:
        """(benchmark, metric) of every cell."""
        return [(b, m) for b in self.benchmarks for m in self.metrics]

    @model_validator(mode="after")
    def _no_more_than_there_are(self) -> "Most":
        if max(self.at_least, self.paper) > len(self.cells):
            raise ValueError(f"there are {len(self.cells)} cells, fewer than at_least or paper")
        return self


class LosesNone(_Measured, _Drawn):
    """Of the problems that `than` solves within all its samples `system` leaves no more than a share unsolved."""

    kind: Literal["loses-none"]
    than: System
    """Whose solved problems must stay solved."""
    at_most: Points
    """Problems that may be lost, in percent of all: 0 can't be shown with any number of problems."""

    @property
    def others(self) -> tuple[System, ...]:
        """Whom the system is compared with."""
        return (self.than,)


class _Limited(_Drawn):
    model: Id
    """The base model."""
    method: Id
    """Whose run is looked at."""
    at_least: float | None = None
    """The limit from below; give it or `at_most`."""
    at_most: float | None = None
    """The limit from above."""

    @model_validator(mode="after")
    def _one_limit(self) -> "_Limited":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give one of at_least and at_most")
        return self

    @property
    def limit(self) -> tuple[int, float]:
        """Which side of the limit the value must lie on (1: above, -1: below), and the limit."""
        if self.at_least is not None:
            return 1, self.at_least
        if self.at_most is not None:
            return -1, self.at_most
        raise ValueError("give one of at_least and at_most")


class Logged(_Limited):
    """A logged training metric lies on one side of a limit: its mean over steps, or its worst value in any step."""

    kind: Literal["logged"]
    metric: str
    """A column of ngrpo.study.run_log.LOGGED."""
    over_steps: Literal["mean", "worst"] = "mean"
    """worst: the least value with `at_least`, the greatest with `at_most`; one step beyond the limit contradicts it."""
    paper: float
    """What the paper reports."""


class Diagnosed(_Limited):
    """A share that `ngrpo diagnostics` counted on the base model lies on one side of a limit."""

    kind: Literal["diagnosed"]
    share: Literal["noise_flips", "mixture_flips"]
    """Of the vectors fed around a token those whose nearest token in E is another one: under noise, or as mixtures."""


class Slowdown(_Drawn):
    """Rollouts of `method` write at most so many percent fewer tokens a second than those of `than`."""

    kind: Literal["slowdown"]
    model: Id
    """The base model."""
    method: Id
    """Whose rollouts are slower."""
    than: Id
    """Whose rollouts they are compared with."""
    at_most: Points
    """Percent, the limit."""
    paper: Points
    """Percent, as the paper reports."""


Compared = Higher | Similar | Most | LosesNone
"""Predicates that compare evaluations."""
Predicate = Annotated[Higher | Similar | Most | LosesNone | Logged | Diagnosed | Slowdown, Field(discriminator="kind")]


class Claim(Config):
    """One sentence that a study can check."""

    where: str
    """Where the paper says it."""
    family: Id
    """Claims that are judged together: those of one table, among which chance has as many tries as there are claims."""
    question: Question = "these benchmarks"
    """What the sentence is about: the benchmarks as they are, or problems of their kind. Both are answered."""
    says: str
    """What it says: a paraphrase, as the paper's sentence isn't quoted here."""
    words: str | None = None
    """The paper's own word on which our reading rests, where there is one."""
    scale: Id = "paper"
    """Whose claim it is: the paper's, or a scale's own, which is judged at that scale alone and marked as such."""
    seeds: Seeds | None = None
    """Training seeds that its trained policies get where it is judged, if tables ask for fewer: what `ngrpo power` says
    that it takes. None: those of the tables."""
    test: Predicate
    """How it is checked."""


class Unjudged(Config):
    """Something that the paper says, and that no study of this kind can decide."""

    where: str
    """Where the paper says it."""
    says: str
    """What it says: a paraphrase."""
    because: str
    """Why no claim judges it, and where a reader finds what there is."""


class ClaimsFile(Config):
    """config/claims.yaml."""

    claims: dict[Id, Claim]
    """Claims by their ids, in the report's order."""
    unjudged: tuple[Unjudged, ...] = ()
    """What the paper says besides: for docs/claims.md."""


def read_claims(config: Path) -> dict[str, Claim]:
    """The claims of a configuration folder; none where it has no such file. Raises UserError for a broken file."""
    path = config / FILE
    return read_yaml(ClaimsFile, path).claims if path.exists() else {}


def said_of(system: System) -> str:
    """A system by its ids, as messages name it."""
    return f"‘{system.row}’" if system.row else f"{system.method or 'the base model'} with {system.decoding} decoding"


def systems_of(test: Predicate) -> list[System]:
    """Every system that a predicate names."""
    if isinstance(test, Compared):
        return [test.system, *test.others]
    if isinstance(test, Slowdown):
        return [System(method=test.method), System(method=test.than)]
    return [System(method=test.method)]


def compared_with(test: Predicate) -> list[tuple[System, System]]:
    """The pairs of systems that a predicate compares; one that looks at a run alone pairs it with itself."""
    if isinstance(test, Compared):
        return [(test.system, other) for other in test.others]
    first, *others = systems_of(test)
    return [(first, other) for other in others or [first]]


def metrics_of(test: Predicate) -> tuple[Metric, ...]:
    """Every metric of evaluations that a predicate names."""
    if isinstance(test, Most):
        return test.metrics
    return (test.metric,) if isinstance(test, Higher | Similar) else ()
