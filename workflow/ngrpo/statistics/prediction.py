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
from ngrpo.statistics.pass_rates import (
    GRID,
    PER_UNIT,
    LogitNoise,
    Shape,
    covariance,
    covariance_left,
    expected,
    smoothed,
)

DRAWS = 100
MOST_SEEDS = 100
"""More training seeds than anybody buys: what they don't decide counts as not decidable."""
TAIL = (1 - CONFIDENCE) / 2
TINY = 1e-30
MOST_TAILS = 1000.0
"""Excess kurtosis beyond which a problem practically never differs."""
PROBE = 0.2
"""Log-odds by which a system is better in the draws: an effect of another size is scaled."""


@dataclass(frozen=True)
class DrawnProblems:
    """Drawn problems of one benchmark. (DRAWS, N) each: own: what method × problem makes of an effect of 0; gain: an
    effect's part; rates: both systems' chances of a correct sample; chance, luck: normal and uniform draws, the same
    for every number of seeds. Variances: samples, run_problem: of one system's value on a problem; alike: the
    covariance of both systems' for the samples that they share. tails: the excess kurtosis of a difference."""

    own: np.ndarray
    gain: np.ndarray
    rates: tuple[np.ndarray, np.ndarray]
    samples: np.ndarray
    alike: np.ndarray
    run_problem: np.ndarray
    tails: np.ndarray
    chance: np.ndarray
    luck: np.ndarray
    shrinks: float
    """By how much noise gets less, as a factor, where one system is better by one of log-odds."""
    mean_gain: float
    """The mean of `gain` over all problems: shares for one of log-odds."""
    seed: np.ndarray
    """σ_seed of one trained system on these problems, (DRAWS,)."""
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
    def _noise(self) -> tuple[np.ndarray, ...]:
        return tuple(np.sqrt(variance) * self.chance for variance in self.inside)

    def noise(self, sides: int, seeds: int) -> np.ndarray:
        """Draws of the mean of so many differences of that variance: normal ones, of which so few aren't 0 that their
        kurtosis is right. Few differ much: a problem is solved now and then."""
        share = 1 / (1 + self.tails / (3 * seeds * max(sides, 1)))
        return np.where(self.luck < share, self._noise[sides] / np.sqrt(share * seeds), 0.0)

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
    """Over GRID: the expected value of a trained policy; variances of samples and of run × problem; a covariance; the
    excess kurtosis of a policy's value."""
    values, both = np.array(g), float(np.hypot(noise.run, noise.run_problem))
    first, second = expected(values), expected(values**2)
    of_runs = smoothed(first**2, noise.run_problem) - smoothed(first, noise.run_problem) ** 2
    alike = smoothed(covariance(values, noise.shared), both)
    inside = smoothed(np.maximum(second - first**2, 0.0), both)
    mean = smoothed(first, both)
    raw = [mean, *(smoothed(expected(values**k), both) for k in (2, 3, 4))]
    square = np.maximum(raw[1] - mean**2, TINY)
    fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
    tails = np.clip(fourth / square**2 - 3, 0.0, MOST_TAILS)
    return np.stack([mean, inside, np.maximum(of_runs, 0.0), alike, tails])


@cache
def draw_problems(shape: Shape, size: int, g: tuple[float, ...], noise: LogitNoise) -> DrawnProblems:
    """DrawnProblems of a shape, drawn with a fixed seed; g: an estimator's values at c = 0 … n."""
    rng = np.random.default_rng(size)
    base = shape.draw(rng, (DRAWS, size))
    value, inside, of_runs, alike, tails = _tables(g, noise)
    a, b = (base + noise.draw(rng, noise.method_problem, base.shape) for _ in range(2))
    at_a, at_b, at_middle = (_nearest(x) for x in (a, b, (a + b) / 2))
    left = covariance_left(GRID, np.sqrt(2) * float(np.hypot(noise.run, noise.run_problem)))

    def differs(at: np.ndarray, apart: np.ndarray) -> float:
        return float((inside[at] + of_runs[at] - alike[at] * left[_nearest(apart)]).mean())

    lessened = differs(_nearest((a + b + PROBE) / 2), a - b + PROBE) / differs(at_middle, a - b)
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
        tails=tails[at_middle],
        chance=rng.normal(size=base.shape),
        luck=rng.uniform(size=base.shape),
        seed=noise.run * gain.mean(-1),
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
        seed = sides * sum(weight * b.seed for b in self.benchmarks) ** 2  # the same runs on all of them
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
            seen = true + np.sqrt(less) * b.noise(sides, seeds)
            if sides < 2:
                seen = seen + np.sqrt((2 - sides) * b.samples) * b.chance[::-1]
            known = less * b.mean_inside[sides] / seeds if seeds > 1 else 0.0
            arms.append(problem_arm(seen, known, weight, b.unseen(seeds)))
            effect += weight * true.mean(-1)
        return arms, effect


@dataclass(frozen=True)
class Asked:
    """What is asked of a comparison. question: of QUESTIONS; similar: whether the difference lies within a margin, to
    both sides; tail: one-sided level at which it is tested."""

    question: str
    similar: bool = False
    tail: float = TAIL


def power_curve(planned: Planned, seeds: int, asked: Asked) -> Callable[[float], float]:
    """The power with so many seeds as a function of the effect's size (a share); where similarity is asked, of a margin
    around no difference. 0 with one seed where a system is trained."""

    def power(size: float) -> float:
        if seeds < 2 and any(planned.trained):
            return 0.0
        true, tail = 0.0 if asked.similar else size, asked.tail
        arms, error = planned.here(seeds, true)
        half, effect = reach(arms, tail, -1), np.full(DRAWS, true)
        if asked.question == QUESTIONS[1]:
            more, effect = planned.problems(seeds, true)
            beyond = more + [arm for arm in arms if np.isfinite(arm.freedom)]
            other = reach(beyond, tail, 1) if asked.similar else 0.0
            half = np.maximum(half, np.maximum(reach(beyond, tail, -1), other))
        if asked.similar:
            inside = special.ndtr((size - half - effect) / error) - special.ndtr((half - size - effect) / error)
            return float(np.maximum(0.0, inside).mean())
        return float(special.ndtr((effect - half) / error).mean())

    return power


def smallest_effect(planned: Planned, seeds: int, asked: Asked) -> float:
    """The smallest effect that so many seeds show with 80 % power, a share; infinite where there is none below 1."""
    power = power_curve(planned, seeds, asked)
    if power(1.0) < POWER:
        return float(np.inf)

    def short(size: float) -> float:
        return power(size) - POWER

    return float(optimize.brentq(short, 0.0, 1.0, xtol=1e-4))


def fewest(enough: Callable[[int], bool], least: int, most: int = MOST_SEEDS) -> int | None:
    """The fewest training seeds that are enough, from least to most; None where even the most aren't. Where some number
    is enough, more are taken to be."""
    if not enough(most):
        return None
    if enough(least):
        return least
    few, many = least, most
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
