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
from scipy import optimize, special

from ngrpo.statistics.crossed import problem_arm, rounding, sensitive
from ngrpo.statistics.effects import CONFIDENCE, POWER, QUESTIONS, Arm, reach
from ngrpo.statistics.simulation import (
    GRID,
    PER_UNIT,
    LogitNoise,
    Shape,
    components,
    covariance,
    covariance_left,
    expected,
    smoothed,
)

DRAWS = 100
MOST_SEEDS = 100
"""More training seeds than anybody buys: what they don't decide counts as not decidable."""
TAIL = (1 - CONFIDENCE) / 2
PROBE = 0.2
"""Log-odds by which a system is better in the draws: an effect of another size is scaled."""


@dataclass(frozen=True)
class DrawnProblems:
    """Drawn problems of one benchmark. (DRAWS, N) each: own: what method × problem makes of an effect of 0; gain: an
    effect's part; rates: both systems' chances of a correct sample; chance: standard
    normal draws, the same for every number of seeds. Variances: samples, run_problem: of one system's value on a
    problem; alike: the covariance of both systems' for the samples that they share."""

    own: np.ndarray
    gain: np.ndarray
    rates: tuple[np.ndarray, np.ndarray]
    samples: np.ndarray
    alike: np.ndarray
    run_problem: np.ndarray
    chance: np.ndarray
    shrinks: float
    """By how much noise gets less, as a factor, where one system is better by one of log-odds."""
    mean_gain: float
    """The mean of `gain` over all problems: shares for one of log-odds."""
    seed: float
    """σ²_seed of a difference of two trained systems."""
    noise_sd: tuple[float, float]
    """Log-odds: of a run, of run × problem."""
    g: tuple[float, ...]
    """The estimator's values at c = 0 … n."""

    @property
    def size(self) -> int:
        """N."""
        return int(self.own.shape[-1])

    @cached_property
    def inside(self) -> tuple[np.ndarray, ...]:
        """The variance (DRAWS, N) of a problem's difference under one seed, by how many of its systems are trained."""
        one = self.samples + self.run_problem
        return np.zeros_like(one), one, 2 * (one - self.alike)

    @cached_property
    def mean_inside(self) -> tuple[np.ndarray, ...]:
        """Its mean over problems (DRAWS,)."""
        return tuple(variance.mean(-1) for variance in self.inside)

    def lessened(self, odds: float) -> float:
        """The factor of that variance where one system is better by so much; beyond one of log-odds as at one."""
        return float(self.shrinks ** np.clip(odds, 0.0, 1.0))

    @cached_property
    def noise(self) -> tuple[np.ndarray, ...]:
        """Draws of what has that variance."""
        return tuple(np.sqrt(variance) * self.chance for variance in self.inside)

    @cached_property
    def _rates(self) -> tuple[np.ndarray, ...]:
        """Sums over problems (DRAWS,): of squared differences of rates, of what a seed's noise adds to them, of squared
        variances of a sample."""
        (a, b), (run, run_problem) = self.rates, self.noise_sd
        one = (a + b) / 2 * (1 - (a + b) / 2)
        seed = 2 * (one / (len(self.g) - 1) + one**2 * (run**2 + run_problem**2))
        return ((a - b) ** 2).sum(-1), seed.sum(-1), (one**2).sum(-1)

    def unseen(self, seeds: int) -> np.ndarray:
        """How much a problem that isn't seen may differ (DRAWS,): ngrpo.statistics.crossed.sensitive."""
        square, noise, variance = self._rates
        return sensitive(square + noise / seeds, variance, np.array(self.g))


@cache
def _tables(g: tuple[float, ...], noise: LogitNoise) -> np.ndarray:
    """Over GRID: the expected value of a trained policy; variances of samples and of run × problem; a covariance."""
    values, both = np.array(g), float(np.hypot(noise.run, noise.run_problem))
    first, second = expected(values), expected(values**2)
    of_runs = smoothed(first**2, noise.run_problem) - smoothed(first, noise.run_problem) ** 2
    alike = smoothed(covariance(values, noise.shared), both)
    inside = smoothed(np.maximum(second - first**2, 0.0), both)
    return np.stack([smoothed(first, both), inside, np.maximum(of_runs, 0.0), alike])


@cache
def draw_problems(shape: Shape, size: int, g: tuple[float, ...], noise: LogitNoise) -> DrawnProblems:
    """DrawnProblems of a shape, drawn with a fixed seed; g: an estimator's values at c = 0 … n."""
    rng = np.random.default_rng(size)
    base = shape.draw(rng, (DRAWS, size))
    value, inside, of_runs, alike = _tables(g, noise)
    a, b = (base + noise.draw(rng, noise.method_problem, base.shape) for _ in range(2))
    at_a, at_b, at_middle = (_nearest(x) for x in (a, b, (a + b) / 2))
    left = covariance_left(GRID, np.sqrt(2) * float(np.hypot(noise.run, noise.run_problem)))
    noisy = 2 * (inside + of_runs - alike)
    lessened = noisy[_nearest((a + b + PROBE) / 2)].mean() / noisy[at_middle].mean()
    own, gain = value[at_a] - value[at_b], (value[_nearest(a + PROBE)] - value[at_a]) / PROBE
    return DrawnProblems(
        own=own - own.mean(),  # neither system is better than its effect says
        gain=gain,
        shrinks=float(lessened ** (1 / PROBE)),
        mean_gain=float(gain.mean()),
        rates=(_RATE[at_a], _RATE[at_b]),
        samples=inside[at_middle],
        alike=alike[at_middle] * left[_nearest(a - b)],
        run_problem=of_runs[at_middle],
        chance=rng.normal(size=base.shape),
        seed=components(shape, np.array(g), noise).seed,
        noise_sd=(noise.run, noise.run_problem),
        g=g,
    )


@cache
def _luck(freedom: int) -> np.ndarray:
    """χ² over its degrees of freedom (DRAWS,): its quantiles in an order of chance, the same for every number of
    seeds, so that more seeds never know less."""
    order = (np.random.default_rng(DRAWS).permutation(DRAWS) + 0.5) / DRAWS
    return np.asarray(2 * special.gammaincinv(freedom / 2, order) / freedom)


_RATE = special.expit(GRID)


def _nearest(log_odds: np.ndarray) -> np.ndarray:
    """The point of GRID that is nearest: close enough for draws."""
    return np.rint(np.clip((log_odds - GRID[0]) * PER_UNIT, 0, len(GRID) - 1)).astype(np.intp)


@dataclass(frozen=True, eq=False)
class Planned:
    """A comparison that is planned: its benchmarks' problems, and which of the two systems are trained."""

    benchmarks: tuple[DrawnProblems, ...]
    trained: tuple[bool, bool] = (True, True)

    @cached_property
    def floor(self) -> float:
        """The least that the variance of seeds' means is taken for."""
        weight = 1 / len(self.benchmarks)
        return sum(rounding(np.array(b.g), b.size, weight) for b in self.benchmarks)

    def odds(self, size: float) -> float:
        """By how many log-odds a system is better, the same on all benchmarks, whose average is better by `size`."""
        return size * len(self.benchmarks) / sum(b.mean_gain for b in self.benchmarks)

    def variances(self, size: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the difference on these benchmarks, (DRAWS,) each: what falls with seeds, under one seed; what doesn't."""
        weight, sides, odds = 1 / len(self.benchmarks), sum(self.trained), self.odds(size)
        seed = sides / 2 * sum(weight * np.sqrt(b.seed) for b in self.benchmarks) ** 2  # the same runs on all of them
        noise = sum(weight**2 * b.lessened(odds) * b.mean_inside[sides] / b.size for b in self.benchmarks)
        still = sum(weight**2 * (2 - sides) * b.samples.mean(-1) / b.size for b in self.benchmarks)
        return np.asarray(seed + noise), np.asarray(still)

    def here(self, seeds: int, size: float) -> tuple[list[Arm], np.ndarray]:
        """Drawn errors on these benchmarks, and the true standard errors (DRAWS,)."""
        falls, still = self.variances(size)
        arms = []
        if np.any(falls):
            arms.append(Arm(np.sqrt(np.maximum(falls * _luck(seeds - 1), self.floor) / seeds), float(seeds - 1)))
        if np.any(still):
            arms.append(Arm(np.sqrt(still), np.inf))
        return arms, np.sqrt(falls / seeds + still)

    def problems(self, seeds: int, size: float) -> tuple[list[Arm], np.ndarray]:
        """Drawn errors over problems, and the effect on the drawn problems (DRAWS,)."""
        weight, sides, odds = 1 / len(self.benchmarks), sum(self.trained), self.odds(size)
        arms, effect = [], np.zeros(DRAWS)
        for b in self.benchmarks:
            true, less = b.own + odds * b.gain, b.lessened(odds)
            seen = true + b.noise[sides] * np.sqrt(less / seeds)
            if sides < 2:
                seen = seen + np.sqrt((2 - sides) * b.samples) * b.chance[::-1]
            known = less * b.mean_inside[sides] / seeds if seeds > 1 else 0.0
            arms.append(problem_arm(seen, known, weight, b.unseen(seeds)))
            effect += weight * true.mean(-1)
        return arms, effect


def power_curve(planned: Planned, seeds: int, question: str, similar: bool = False) -> Callable[[float], float]:
    """The power with so many seeds as a function of the effect's size (a share); with similar, of a margin around no
    difference. 0 with one seed where a system is trained."""

    def power(size: float) -> float:
        if seeds < 2 and any(planned.trained):
            return 0.0
        true = 0.0 if similar else size
        arms, error = planned.here(seeds, true)
        half, effect = reach(arms, TAIL, -1), np.full(DRAWS, true)
        if question == QUESTIONS[1]:
            more, effect = planned.problems(seeds, true)
            beyond = more + [arm for arm in arms if np.isfinite(arm.freedom)]
            half = np.maximum(half, np.maximum(reach(beyond, TAIL, -1), reach(beyond, TAIL, 1) if similar else 0.0))
        if similar:
            inside = special.ndtr((size - half - effect) / error) - special.ndtr((half - size - effect) / error)
            return float(np.maximum(0.0, inside).mean())
        return float(special.ndtr((effect - half) / error).mean())

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
