"""The paper's checkable sentences as typed predicates: config/claims.yaml. Evidence: ngrpo.claims.evidence.

A predicate names systems by method and decoding, models, benchmarks and metrics by their ids in study.yaml and
scales/paper.yaml. At a scale that gives no verdicts its own model and benchmarks stand in for the paper's.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from ngrpo.audit.status import LOGGED
from ngrpo.errors import UserError, unknown_name
from ngrpo.study.base import Config, Id
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues
from ngrpo.study.reading import read_yaml

FILE = "claims.yaml"
Metric = Annotated[str, StringConstraints(pattern=r"^(mean|pass@[1-9][0-9]*)$")]
Points = Annotated[float, Field(gt=0, le=100)]


class System(Config):
    """Who answers how: a method's run (None: the base model) under a decoding."""

    method: Id | None = None
    """The training system; None: the base model."""
    decoding: Id = "standard"
    """How its answers are drawn."""


class _Measured(Config):
    """What comparisons of evaluations share."""

    model: Id
    """The base model."""
    system: System
    """Who is compared."""
    benchmarks: tuple[Id, ...] = Field(min_length=1)
    """Averaged, or looked at one by one, as the kind says."""
    metric: Metric
    """`mean`, or `pass@K`."""
    estimator: Literal["bootstrap", "unbiased"] = "bootstrap"
    """Of Pass@k: the paper's numbers come from the bootstrap. The other one is shown beside it."""


class Higher(_Measured):
    """`system` scores higher than each of `than`, on the average of the benchmarks."""

    kind: Literal["higher"]
    than: tuple[System, ...] = Field(min_length=1)
    """Whom it must be above, each of them."""
    paper: tuple[Points, ...]
    """The paper's differences, in points, one for each of `than`: what a study must be able to see."""

    @model_validator(mode="after")
    def _one_each(self) -> "Higher":
        if len(self.paper) != len(self.than):
            raise ValueError(f"paper has {len(self.paper)} differences, than has {len(self.than)} systems")
        return self


class Similar(_Measured):
    """`system` scores within a margin of each of `to`, on each benchmark."""

    kind: Literal["similar"]
    to: tuple[System, ...] = Field(min_length=1)
    """Whom it must be close to, each of them."""
    within: Points
    """The margin in points: our reading of "insensitive", as the paper gives none."""


class Logged(Config):
    """The mean of a logged training metric over steps lies on one side of a limit."""

    kind: Literal["logged"]
    model: Id
    """The base model."""
    method: Id
    """Whose run logged it."""
    metric: str
    """A column of ngrpo.audit.status.LOGGED."""
    at_least: float | None = None
    """The limit from below; give it or `at_most`."""
    at_most: float | None = None
    """The limit from above."""
    paper: float
    """What the paper reports."""

    @model_validator(mode="after")
    def _one_limit(self) -> "Logged":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give one of at_least and at_most")
        return self

    @property
    def limit(self) -> tuple[int, float]:
        """Which side of the limit the mean must lie on (1: above, -1: below), and the limit."""
        if self.at_least is not None:
            return 1, self.at_least
        if self.at_most is not None:
            return -1, self.at_most
        raise ValueError("give one of at_least and at_most")


class Slowdown(Config):
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


Predicate = Annotated[Higher | Similar | Logged | Slowdown, Field(discriminator="kind")]


class Claim(Config):
    """One sentence of the paper that this study can check."""

    where: str
    """Where the paper says it."""
    says: str
    """What it says, in our words."""
    test: Predicate
    """How it is checked."""


class ClaimsFile(Config):
    """config/claims.yaml."""

    claims: dict[Id, Claim]
    """Claims by their ids, in the report's order."""


def read_claims(config: Path) -> dict[str, Claim]:
    """The claims of a configuration folder; none where it has no such file. Raises UserError for a broken file."""
    path = config / FILE
    return read_yaml(ClaimsFile, path).claims if path.exists() else {}


def systems_of(test: Predicate) -> list[System]:
    """Every system that a predicate names."""
    if isinstance(test, Higher):
        return [test.system, *test.than]
    if isinstance(test, Similar):
        return [test.system, *test.to]
    if isinstance(test, Slowdown):
        return [System(method=test.method), System(method=test.than)]
    return [System(method=test.method)]


def check_names(name: str, claim: Claim, study: Study, paper: PaperValues | None) -> None:
    """Raises UserError, with the nearest id, for a method, decoding, model, benchmark or metric that doesn't exist.

    A model or benchmark of the paper exists although this scale may not have it.
    """
    test, where = claim.test, f"{FILE}: claims.{name}"

    def known(kind: str, wanted: str, names: set[str]) -> None:
        if wanted not in names:
            raise unknown_name(kind, wanted, names, where=where)

    for system in systems_of(test):
        if system.method is not None:
            known("method", system.method, set(study.study.methods))
        known("decoding", system.decoding, set(study.study.decodings))
    known("model", test.model, set(study.models) | (paper.models if paper else set()))
    if isinstance(test, Higher | Similar):
        for benchmark in test.benchmarks:
            known("benchmark", benchmark, set(study.datasets) | (paper.benchmarks if paper else set()))
    if isinstance(test, Logged):
        known("logged metric", test.metric, set(LOGGED) - {"step"})


def at_scale(test: Predicate, study: Study) -> Predicate:
    """The predicate at this study's scale: itself, or where the scale gives no verdicts, with its model and sizes.

    Raises UserError, saying what this scale lacks, where it can't be asked here.
    """
    if study.size.verdicts:
        lacking = [] if test.model in study.models else [test.model]
        if isinstance(test, Higher | Similar):
            lacking += [name for name in dict.fromkeys(test.benchmarks) if name not in study.datasets]
            tries = int(test.metric.partition("@")[2] or 1)
            if tries > study.size.evaluation.samples:
                raise UserError(f"{test.metric} needs {tries} samples a problem; this scale takes fewer")
        if lacking:
            raise UserError(
                f"this scale has no {', '.join(lacking)}",
                where=f"scales/{study.scale}.yaml",
                do="add it there, and a table that measures it to study.yaml",
            )
        return test
    changes: dict[str, object] = {"model": test.model if test.model in study.models else next(iter(study.models))}
    if isinstance(test, Higher | Similar):
        if not set(test.benchmarks) <= set(study.datasets):
            changes["benchmarks"] = study.size.benchmarks
        name, _, k = test.metric.partition("@")
        changes["metric"] = f"{name}@{min(int(k), study.size.evaluation.samples)}" if k else name
    return test.model_copy(update=changes)
