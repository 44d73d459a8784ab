"""An effect with its error for two questions, each with one interval and one p that agree.

| question | random | fixed |
|---|---|---|
| on these benchmarks | training seeds, samples | problems |
| on problems like these | training seeds, samples, problems | nothing |

An error may have several sources (`Arm`), each known to its own degrees of freedom: their variances add, and the
quantile is the mean of the arms' Student quantiles, weighted by variance (Cochran & Cox 1950). docs/statistics.md has
the model, the choices and how often such intervals cover.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

CONFIDENCE = 0.95
POWER = 0.80
QUESTIONS = ("on these benchmarks", "on problems like these")
HALVINGS = 44
"""Of the interval in which a p is sought, on the scale of log p."""
LEAST_TAIL = 1e-12


@dataclass(frozen=True)
class Arm:
    """One source of error. Arrays of the effect's shape, or numbers."""

    error: np.ndarray
    """Its standard error."""
    freedom: np.ndarray | float
    """Degrees of freedom with which the error is known; infinite where it is given."""
    skew: np.ndarray | float = 0.0
    """Third moment over 6 N s²: how far, in the effect's unit, rare problems pull the mean (Johnson 1978). An interval
    reaches farther on that side, never less far on the other."""
    unseen: np.ndarray | float = 0.0
    """What all problems together would add if they differed as those seen do, or as they may."""
    size: int = 1
    """N: of so many problems that show nothing, a share of 1 − tail^(1/N) may (Clopper & Pearson 1934, of none)."""


def reach(arms: Sequence[Arm], tail: np.ndarray | float, side: np.ndarray | int) -> np.ndarray:
    """How far an interval goes to a side (1: above, -1: below) so that the chance `tail` (0 … 0.5) lies beyond."""
    zero = np.zeros(())
    square, weighted, extra, rare = zero, zero, zero, zero
    for arm in arms:
        quantile = -special.stdtrit(arm.freedom, tail)  # Student's; stats.t.isf without its checks: 60 times as fast
        square = square + arm.error**2
        weighted = weighted + quantile * arm.error**2
        extra = extra + np.maximum(0.0, side * arm.skew) * (1 + 2 * quantile**2)
        rare = rare + (arm.unseen * (1 - np.asarray(tail) ** (1 / arm.size))) ** 2
    half = weighted / np.sqrt(np.maximum(square, np.finfo(float).tiny))
    return np.sqrt(half**2 + rare) + extra


@dataclass(frozen=True)
class Effect:
    """An estimate and its sources of error for each of QUESTIONS."""

    estimate: np.ndarray
    arms: tuple[Arm, ...]
    """On these benchmarks."""
    beyond: tuple[Arm, ...] | None = None
    """On problems like these; None where the question doesn't arise, as for a training log."""
    _known_p: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, question: str) -> tuple[Arm, ...]:
        """The sources of error for one of QUESTIONS."""
        return self.arms if question == QUESTIONS[0] or self.beyond is None else self.beyond

    def reach(self, tail: np.ndarray | float, side: np.ndarray | int, question: str) -> np.ndarray:
        """How far the interval for a question goes to a side, with the chance `tail` beyond it.

        What holds on problems like these holds on these: that interval is never the narrower one.
        """
        arms = self.of(question)
        if arms is self.arms:
            return reach(arms, tail, side)
        return np.maximum(reach(self.arms, tail, side), reach(arms, tail, side))

    def interval(self, confidence: float = CONFIDENCE, question: str = QUESTIONS[0]) -> tuple[np.ndarray, np.ndarray]:
        """The two-sided interval."""
        tail = (1 - confidence) / 2
        return self.estimate - self.reach(tail, -1, question), self.estimate + self.reach(tail, 1, question)

    def p(self, question: str = QUESTIONS[0]) -> np.ndarray:
        """Two-sided: 1 − the confidence of the interval that just reaches 0."""
        if question not in self._known_p:
            self._known_p[question] = self._found_p(question)
        return self._known_p[question]

    def _found_p(self, question: str) -> np.ndarray:
        arms, size = self.of(question), np.abs(self.estimate)
        if len(arms) == 1 and not np.any(arms[0].skew) and not np.any(arms[0].unseen):
            tiny = np.finfo(float).tiny
            return np.minimum(1.0, 2 * special.stdtr(arms[0].freedom, -size / np.maximum(arms[0].error, tiny)))
        facing = -np.sign(self.estimate)
        low, high = np.full(np.shape(size), np.log(LEAST_TAIL)), np.full(np.shape(size), np.log(0.5))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            excluded = size > self.reach(np.exp(middle), facing, question)
            low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
        return np.minimum(1.0, 2 * np.exp(high))

    def one_sided_p(self, question: str = QUESTIONS[0]) -> np.ndarray:
        """Of "not above 0": half the two-sided p where the estimate is above 0, else 1 minus that."""
        half = self.p(question) / 2
        return np.where(self.estimate > 0, half, 1 - half)

    def detectable(self, question: str = QUESTIONS[0]) -> np.ndarray:
        """The smallest true effect that a two-sided 5 % test of such data shows with 80 % power."""
        return self.reach((1 - CONFIDENCE) / 2, 1, question) + self.reach(1 - POWER, 1, question)

    def moved(self, sign: int, by: float) -> "Effect":
        """sign · effect + by."""
        turned = [
            None if arms is None else tuple(_turned(arm, sign) for arm in arms) for arms in (self.arms, self.beyond)
        ]
        return Effect(sign * self.estimate + by, turned[0] or (), turned[1])


def _turned(arm: Arm, sign: int) -> Arm:
    return Arm(arm.error, arm.freedom, sign * arm.skew, arm.unseen, arm.size)
