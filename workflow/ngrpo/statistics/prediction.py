"""The power of a comparison before it is made, from variance components: how often its interval would show an effect.

Problems are drawn from their shape, with their own differences; the mean squares of seeds and of noise from their
χ² distributions; the interval is that of `ngrpo.statistics.effects`. Simulated studies agree within 5 points
(docs/statistics.md).

On these benchmarks an effect is that on these very problems: with enough seeds every effect is seen. On problems like
these the problems add what no seed takes away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import optimize, stats

from ngrpo.statistics.crossed import problem_arm
from ngrpo.statistics.effects import CONFIDENCE, POWER, QUESTIONS, Arm, reach
from ngrpo.statistics.simulation import GRID, LogitNoise, Shape, components, expected, smoothed

DRAWS = 100
MOST_SEEDS = 100
"""More training seeds than anybody buys: what they don't decide counts as not decidable."""
TAIL = (1 - CONFIDENCE) / 2
PROBE = 0.2
"""Log-odds by which a system is better in the draws: an effect of another size is scaled."""


@dataclass(frozen=True)
class DrawnProblems:
    """Drawn problems of one benchmark. (DRAWS, N) each: own: what method × problem makes of an effect of 0; gain: an
    effect's part, of mean 1 over all problems; samples, run_problem: variances of one system's value on a problem."""

    own: np.ndarray
    gain: np.ndarray
    samples: np.ndarray
    run_problem: np.ndarray
    seed: float
    """σ²_seed of a difference of two trained systems."""

    @property
    def size(self) -> int:
        """N."""
        return int(self.own.shape[-1])


@cache
def draw_problems(shape: Shape, size: int, g: tuple[float, ...], noise: LogitNoise) -> DrawnProblems:
    """DrawnProblems of a shape, drawn with a fixed seed; g: an estimator's values at c = 0 … n."""
    rng, values = np.random.default_rng(size), np.array(g)
    base = shape.draw(rng, (DRAWS, size))
    first, second = expected(values), expected(values**2)
    table = smoothed(first, float(np.hypot(noise.run, noise.run_problem)))
    a, b = (base + noise.draw(rng, noise.method_problem, base.shape) for _ in range(2))
    middle = (a + b) / 2
    mean = shape.mean(table, PROBE, noise.method_problem) - shape.mean(table, 0.0, noise.method_problem)
    gain = np.interp(a + PROBE, GRID, table) - np.interp(a, GRID, table)
    samples = np.interp(middle, GRID, smoothed(np.maximum(second - first**2, 0.0), noise.run_problem))
    run_problem = np.interp(
        middle, GRID, smoothed(first**2, noise.run_problem) - smoothed(first, noise.run_problem) ** 2
    )
    own = np.interp(a, GRID, table) - np.interp(b, GRID, table)
    return DrawnProblems(own, gain / mean, samples, np.maximum(run_problem, 0.0), components(shape, values, noise).seed)


@dataclass(frozen=True, eq=False)
class Planned:
    """A comparison that is planned: its benchmarks' problems, and which of the two systems are trained."""

    benchmarks: tuple[DrawnProblems, ...]
    trained: tuple[bool, bool] = (True, True)

    @cached_property
    def variances(self) -> tuple[float, float]:
        """Of the difference on these benchmarks: what falls with seeds, under one seed; what doesn't."""
        weight, sides = 1 / len(self.benchmarks), sum(self.trained)
        seed = sides / 2 * sum(weight * np.sqrt(b.seed) for b in self.benchmarks) ** 2  # the same runs on all of them
        noise = sum(weight**2 * sides * float((b.samples + b.run_problem).mean()) / b.size for b in self.benchmarks)
        still = sum(weight**2 * (2 - sides) * float(b.samples.mean()) / b.size for b in self.benchmarks)
        return float(seed + noise), float(still)

    def here(self, seeds: int, rng: np.random.Generator) -> tuple[list[Arm], float]:
        """Drawn errors on these benchmarks, and the true standard error."""
        falls, still = self.variances
        arms = []
        if falls:
            chance = rng.chisquare(seeds - 1, DRAWS) / (seeds - 1)
            arms.append(Arm(np.sqrt(falls / seeds * chance), float(seeds - 1)))
        if still:
            arms.append(Arm(np.full(DRAWS, np.sqrt(still)), np.inf))
        return arms, float(np.sqrt(falls / seeds + still))

    def problems(self, seeds: int, size: float, rng: np.random.Generator) -> tuple[list[Arm], np.ndarray]:
        """Drawn errors over problems, and the effect on the drawn problems (DRAWS,)."""
        weight, sides = 1 / len(self.benchmarks), sum(self.trained)
        arms, effect = [], np.zeros(DRAWS)
        for b in self.benchmarks:
            true = b.own + size * b.gain
            noise = sides * (b.samples + b.run_problem) / seeds + (2 - sides) * b.samples
            seen = true + np.sqrt(noise) * rng.normal(size=true.shape)
            known = sides * (b.samples + b.run_problem).mean(-1) / seeds if seeds > 1 else 0.0
            arms.append(problem_arm(seen, known, weight, 0.0))
            effect += weight * true.mean(-1)
        return arms, effect


def power_curve(planned: Planned, seeds: int, question: str, similar: bool = False) -> Callable[[float], float]:
    """The power with so many seeds as a function of the effect's size (a share); with similar, of a margin around no
    difference. 0 with one seed where a system is trained."""

    def power(size: float) -> float:
        if seeds < 2 and any(planned.trained):
            return 0.0
        rng = np.random.default_rng(seeds)
        arms, error = planned.here(seeds, rng)
        half, effect = reach(arms, TAIL, -1), np.full(DRAWS, 0.0 if similar else size)
        if question == QUESTIONS[1]:
            more, effect = planned.problems(seeds, 0.0 if similar else size, rng)
            beyond = more + [arm for arm in arms if np.isfinite(arm.freedom)]
            half = np.maximum(half, np.maximum(reach(beyond, TAIL, -1), reach(beyond, TAIL, 1) if similar else 0.0))
        if similar:
            inside = stats.norm.cdf((size - half - effect) / error) - stats.norm.cdf((half - size - effect) / error)
            return float(np.maximum(0.0, inside).mean())
        return float(stats.norm.cdf((effect - half) / error).mean())

    return power


def smallest_effect(planned: Planned, seeds: int, question: str, similar: bool = False) -> float:
    """The smallest effect that so many seeds show with 80 % power, a share; infinite where there is none below 1."""
    power = power_curve(planned, seeds, question, similar)
    if power(1.0) < POWER:
        return float(np.inf)

    def short(size: float) -> float:
        return power(size) - POWER

    return float(optimize.brentq(short, 0.0, 1.0, xtol=1e-4))


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
