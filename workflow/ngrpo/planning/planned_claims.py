"""What a claim takes to be decided: comparisons that must be shown, how likely they are together, seeds, hours.

A claim may need several comparisons, which share runs and problems: how likely all of them (or so many cells) are
together isn't known, but lies between two bounds (ngrpo.statistics.joint). Printed scores fit more than one shape of
difficulty (ngrpo.statistics.fitting). So power is a range: what is assured by the fitted shape, the least by the shape
under which runs vary most, and the most by the one under which they vary least.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ngrpo.planning.costs import Span
from ngrpo.statistics.crossed import mean_of_values
from ngrpo.statistics.effects import POWER, QUESTIONS
from ngrpo.statistics.joint import least_likely, most_likely
from ngrpo.statistics.prediction import MOST_SEEDS, TAIL, Asked, Planned, fewest, power_curve, smallest_effect
from ngrpo.study.predicates import Claim

Place = Literal[0, 1, 2]
FITTED: Place = 0
CALM: Place = 1
NOISY: Place = 2
"""Under which shape of difficulty: the fitted one, or that under which runs vary least or most."""


@dataclass(frozen=True)
class Hours:
    """Device-hours of a claim: what every seed costs, and what is paid once."""

    seed: Span
    once: Span
    wall: Span
    """From start to end with as many nodes as jobs: one training and its longest evaluation."""

    def of(self, seeds: int) -> Span:
        """Of so many seeds."""
        return self.seed * seeds + self.once


@dataclass(frozen=True)
class Compared:
    """A difference that must be shown, or with similar: that it lies within a margin."""

    planned: tuple[Planned, ...]
    """By place."""
    size: float
    """The smallest effect that is asked of it, or the margin; a share."""
    similar: bool = False

    def power(self, place: Place, seeds: int, question: str, tail: float) -> float:
        """How often it is shown."""
        return _power(self.planned[place], seeds, Asked(question, self.similar, tail), self.size)

    def detectable(self, seeds: int, question: str, tail: float) -> float:
        """The smallest effect that is shown with 80 % power."""
        return _detectable(self.planned[FITTED], seeds, Asked(question, self.similar, tail))


@cache
def _power(planned: Planned, seeds: int, asked: Asked, size: float) -> float:
    return power_curve(planned, seeds, asked)(size)


@cache
def _detectable(planned: Planned, seeds: int, asked: Asked) -> float:
    return smallest_effect(planned, seeds, asked)


@dataclass(frozen=True)
class NoneLost:
    """That no more than a share of problems is lost, where none is."""

    problems: int
    trained: bool
    size: float
    """The limit, a share."""

    def power(self, place: Place, seeds: int, question: str, tail: float) -> float:
        """1 where none lost of so many problems is enough, else 0."""
        return float(self.detectable(seeds, question, tail) < self.size)

    def detectable(self, seeds: int, question: str, tail: float) -> float:
        """The share that none lost leaves possible."""
        if self.trained and seeds < 2:
            return float(np.inf)
        effect = mean_of_values(np.zeros((max(seeds, 1), self.problems)), self.trained)
        return float(effect.reach(tail, 1, question))


Shown = Compared | NoneLost


@dataclass(frozen=True)
class Decision:
    """What deciding a claim takes, for one of QUESTIONS. Sizes are shares."""

    question: str
    detectable: float
    """With the seeds that the study gives it; infinite with one."""
    seeds: int | None
    """That are sure to have 80 % power, by the fitted shape; None: no number of seeds has it."""
    hopeful: int | None
    """The fewest that may have it, under any shape and however its comparisons hang together."""
    cautious: int | None
    """Those that have it under every shape."""
    hours: Span | None


@dataclass(frozen=True)
class PlannedClaim:
    """A claim whose power can be told."""

    name: str
    claim: Claim
    cells: tuple[tuple[Shown, ...], ...]
    """Comparisons; all of a cell's must be shown, in `at_least` cells."""
    at_least: int
    runs: frozenset[str]
    """Methods × model that it trains, by the ids of their first seed's runs."""
    hours: Hours
    seeds: int
    """Training seeds that the study gives it: of the comparison that has the fewest; 1 where nothing is trained."""

    @property
    def first(self) -> Shown:
        """The comparison of which least is asked."""
        return min((shown for cell in self.cells for shown in cell), key=_size)

    @property
    def tail(self) -> float:
        """The one-sided level of each comparison: ngrpo.statistics.partial adjusts it for cells that may fail."""
        return TAIL / (len(self.cells) - self.at_least + 1)

    def power(self, seeds: int, question: str, place: Place = FITTED, *, most: bool = False) -> float:
        """The least power that it has under a shape; with most: the most."""
        cells = []
        for cell in self.cells:
            chances = [shown.power(place, seeds, question, self.tail) for shown in cell]
            cells.append(min(chances) if most else least_likely(chances, len(chances)))
        return (most_likely if most else least_likely)([max(0.0, p) for p in cells], self.at_least)

    def between(self, seeds: int, question: str) -> tuple[float, float]:
        """The least and the most power, whatever the shape."""
        least = min(self.power(seeds, question, place) for place in (FITTED, NOISY))
        return least, max(self.power(seeds, question, place, most=True) for place in (FITTED, CALM))

    def detectable(self, question: str) -> float:
        """The smallest effect that its seeds show in enough cells, each comparison alone."""
        sizes = [max(shown.detectable(self.seeds, question, self.tail) for shown in cell) for cell in self.cells]
        return sorted(sizes)[self.at_least - 1]

    def decision(self, question: str) -> Decision:
        """What it takes."""

        def assured(seeds: int) -> bool:
            return self.power(seeds, question) >= POWER

        def possible(seeds: int) -> bool:
            return self.power(seeds, question, CALM, most=True) >= POWER

        def certain(seeds: int) -> bool:
            return self.power(seeds, question, NOISY) >= POWER

        # what isn't shown on these benchmarks isn't on others: fewer seeds needn't be tried
        least: tuple[int | None, ...] = (2, 2, 2)
        if question != QUESTIONS[0]:
            here = self.decision(QUESTIONS[0])
            least = (here.seeds, here.hopeful, here.cautious)
        if not self.runs:
            needed, hopeful, cautious = (1 if enough(1) else None for enough in (assured, possible, certain))
        else:
            needed = fewest(assured, least[0]) if least[0] else None
            hopeful = fewest(possible, least[1], needed or MOST_SEEDS) if least[1] else None
            cautious = fewest(certain, max(needed, least[2])) if needed and least[2] else None
        hopeful = hopeful or needed
        hours = None if needed is None else self.hours.of(needed)
        return Decision(question, self.detectable(question), needed, hopeful, cautious, hours)


def _size(shown: Shown) -> float:
    return shown.size


def all_planned(claims: Sequence[object]) -> list[PlannedClaim]:
    """Those whose power can be told."""
    return [claim for claim in claims if isinstance(claim, PlannedClaim)]
