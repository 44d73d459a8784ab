"""The power of a comparison before it is made, from variance components: how often its interval would show an effect.

The mean squares that a study would see are drawn from their χ² distributions, the interval is that of
`ngrpo.statistics.effects.reach`, and the estimate is normal around the effect. Simulated studies agree within 5 points
(docs/statistics.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from ngrpo.statistics.effects import CONFIDENCE, POWER, QUESTIONS, Arm, Effect
from ngrpo.statistics.simulation import Components

DRAWS = 400
MOST_SEEDS = 100
"""More training seeds than anybody buys: what they don't decide counts as not decidable."""


@dataclass(frozen=True)
class Planned:
    """A comparison that is planned: the components of each of its benchmarks with its problems; which of the two
    systems are trained."""

    benchmarks: tuple[tuple[Components, int], ...]
    trained: tuple[bool, bool] = (True, True)

    def effect(self, seeds: int, rng: np.random.Generator) -> tuple[Effect, tuple[float, float]]:
        """DRAWS studies' errors around an estimate of 0, and the true standard errors for each of QUESTIONS."""
        weight, share = 1 / len(self.benchmarks), sum(self.trained) / 2
        # seeds' effects are common to the benchmarks, so they add before they are squared
        seed = share * sum(weight * np.sqrt(c.seed) for c, _ in self.benchmarks) ** 2
        rest = sum(weight**2 * share * (c.samples + c.run_problem) / n for c, n in self.benchmarks)
        still = (1 - share) * sum(weight**2 * c.samples / n for c, n in self.benchmarks)
        arms, beyond = [], []
        over_seeds = (seed + rest) / seeds if share else 0.0
        if share:
            arms.append(_drawn(over_seeds, seeds - 1, rng))
        if still:
            arms.append(Arm(np.full(DRAWS, np.sqrt(still)), np.inf))
        problems = 0.0
        for c, n in self.benchmarks:
            own = weight**2 * (c.problem + (1 - share) * c.samples) / n
            noise = weight**2 * share * (c.samples + c.run_problem) / n / seeds
            seen = (own + noise) * rng.chisquare(n - 1, DRAWS) / (n - 1)
            if seeds > 1 and share:
                cells = (n - 1) * (seeds - 1)
                seen = seen - noise * rng.chisquare(cells, DRAWS) / cells
            beyond.append(Arm(np.sqrt(np.maximum(seen, 0.0)), float(n - 1)))
            problems += own
        if share:
            beyond.append(arms[0])
        errors = (float(np.sqrt(over_seeds + still)), float(np.sqrt(over_seeds + problems)))
        return Effect(np.zeros(DRAWS), tuple(arms), tuple(beyond)), errors


def _drawn(variance: float, freedom: int, rng: np.random.Generator) -> Arm:
    return Arm(np.sqrt(variance * rng.chisquare(freedom, DRAWS) / freedom), float(freedom))


def power_curve(planned: Planned, seeds: int, question: str, similar: bool = False) -> Callable[[float], float]:
    """The power with so many seeds as a function of the effect's size (a share); with similar, of a margin around no
    difference. 0 with one seed where a system is trained."""
    if seeds < 2 and any(planned.trained):
        return _none
    effect, errors = planned.effect(seeds, np.random.default_rng(seeds))
    error = errors[QUESTIONS.index(question)]
    half = effect.reach((1 - CONFIDENCE) / 2, 1, question)

    def power(size: float) -> float:
        beyond = (size - half) / error
        if similar:
            return float(np.maximum(0.0, 2 * stats.norm.cdf(beyond) - 1).mean())
        return float(stats.norm.cdf(beyond).mean())

    return power


def _none(size: float) -> float:
    return 0.0


def smallest_effect(planned: Planned, seeds: int, question: str, similar: bool = False) -> float:
    """The smallest effect that so many seeds show with 80 % power, a share; infinite with one seed of a trained one."""
    power = power_curve(planned, seeds, question, similar)
    if power(100.0) < POWER:
        return np.inf
    return float(optimize.brentq(_short_of, 0.0, 100.0, args=(power,), xtol=1e-6))


def _short_of(size: float, power: Callable[[float], float]) -> float:
    return power(size) - POWER


def seeds_needed(planned: Planned, size: float, question: str, similar: bool = False) -> int | None:
    """The fewest seeds with 80 % power for an effect of this size; None where MOST_SEEDS don't have it. 1 where nothing
    is trained and one evaluation has it."""

    def enough(seeds: int) -> bool:
        return power_curve(planned, seeds, question, similar)(size) >= POWER

    if not any(planned.trained):
        return 1 if enough(1) else None
    if not enough(MOST_SEEDS):
        return None
    few, many = 1, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def power_over_seeds(
    planned: Sequence[Planned], sizes: Sequence[float], seeds: int, question: str, similar: bool = False
) -> float:
    """The power of a claim that needs several comparisons: that of the hardest, which it can't exceed."""
    each = [power_curve(p, seeds, question, similar)(size) for p, size in zip(planned, sizes, strict=True)]
    return min(each)
