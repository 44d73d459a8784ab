"""How far two runs' printed values lie apart by chance, on the paper's benchmarks, where neither system is better.

| symbol | meaning |
|---|---|
| η_i | log-odds that a sample of problem i is correct: μ + σ · z_i, z_i the normal quantile of (i + ½)/N |
| run, own | standard deviations of log-odds: of a training run as a whole; of a problem in it |
| g(c) | an estimator's value of a problem with c of n samples correct |

Each of a study's two runs moves all problems by one draw of `run` and each problem by one of `own`; then n samples are
drawn, and the bootstrap's 1000 draws. μ and σ are fitted, for each benchmark, to the printed Mean@32 and Pass@32 of
GRPO's row. Nothing is simulated: expectations are sums over the binomial's n + 1 outcomes and Gauss and Hermite's
nodes, and a mean over 30 to 570 problems is taken for normal (tests/unit/test_paper_noise.py simulates the same,
seeded, and agrees). What no run moves can't be seen so: the two systems' samples are taken for independent.

The sizes of `run` and `own` are a declaration, not a measurement: the paper reports no second seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special

from ngrpo.statistics.estimators import BOOTSTRAP_DRAWS, bootstrap_pass_at_k, count_chances, unbiased_pass_at_k
from ngrpo.statistics.simulation import DECLARED

SAMPLES = 32
GRID = np.linspace(-40.0, 40.0, 1601)
NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
ALPHA, POWER = 0.05, 0.80


@dataclass(frozen=True)
class RunNoise:
    """Standard deviations of log-odds between two runs that don't differ."""

    run: float = DECLARED.run
    """Of a run as a whole: another seed."""
    own: float = float(np.hypot(DECLARED.method_problem, DECLARED.run_problem))
    """Of a problem in a run: what a method brings to it, and what a seed does."""


SAME_WEIGHTS = RunNoise(0.0, 0.0)
"""Two evaluations of one model: other samples, nothing else."""


@dataclass(frozen=True)
class _Moments:
    """At each log-odds of GRID, over a problem's samples: mean and variance of its value (its draws included)."""

    mean: np.ndarray
    square: np.ndarray
    drawn: np.ndarray


@cache
def _moments(metric: str, own: float) -> _Moments:
    """Of a metric's value, with `own` averaged over."""
    likelihood = count_chances(SAMPLES, GRID).T
    k = metric.partition("@")[2]
    g = bootstrap_pass_at_k(SAMPLES, int(k)) if k else unbiased_pass_at_k(SAMPLES, 1)
    drawn = g * (1 - g) / BOOTSTRAP_DRAWS if k else np.zeros_like(g)
    smooth = [_smoothed(likelihood @ values, own) for values in (g, g**2, drawn)]
    return _Moments(*smooth)


def _smoothed(values: np.ndarray, spread: float) -> np.ndarray:
    return np.array([np.interp(GRID + spread * node, GRID, values) for node in NODES]).T @ WEIGHTS


@cache
def _expected(metric: str, noise: RunNoise) -> np.ndarray:
    """At each log-odds of GRID: a problem's expected value, over runs."""
    return _smoothed(_moments(metric, noise.own).mean, noise.run)


@dataclass(frozen=True)
class PrintedBenchmark:
    """A benchmark's problems, as GRPO's printed row has them. mean, pass_at: shares of Mean@32 and Pass@32."""

    problems: int
    mean: float
    pass_at: float


@cache
def log_odds(benchmark: PrintedBenchmark, noise: RunNoise) -> np.ndarray:
    """η (N,), whose expected Mean@32 and Pass@32 under this noise are the printed ones, as nearly as can be."""
    z = special.ndtri((np.arange(benchmark.problems) + 0.5) / benchmark.problems)
    printed = (("mean", benchmark.mean), ("pass@32", benchmark.pass_at))

    def miss(at: np.ndarray) -> list[float]:
        places = at[0] + np.exp(at[1]) * z
        return [float(np.interp(places, GRID, _expected(name, noise)).mean()) - share for name, share in printed]

    start = [float(special.logit(benchmark.mean)), 0.7]
    fitted = optimize.least_squares(miss, start, bounds=([-25, -3], [25, 3]))
    return fitted.x[0] + np.exp(fitted.x[1]) * z


def difference_deviation(benchmarks: Sequence[PrintedBenchmark], metric: str, noise: RunNoise = RunNoise()) -> float:
    """The standard deviation, as a share, of the difference of two runs' averages over benchmarks.

    metric: "mean" or "pass@k", by the release's bootstrap.
    """
    moments = _moments(metric, noise.own)
    inside, moved = 0.0, np.zeros(len(NODES))
    for benchmark in benchmarks:
        places = log_odds(benchmark, noise)[:, None] + noise.run * NODES
        mean, square, drawn = (np.interp(places, GRID, v) for v in (moments.mean, moments.square, moments.drawn))
        inside += float((square - mean**2 + drawn).sum(0) @ WEIGHTS) / (benchmark.problems * len(benchmarks)) ** 2
        moved = moved + mean.mean(0) / len(benchmarks)
    return float(np.sqrt(2 * (inside + moved**2 @ WEIGHTS - (moved @ WEIGHTS) ** 2)))


def chance_of(difference: float, deviation: float) -> float:
    """How often a difference at least as large, in the same direction, comes up where there is none."""
    return float(special.ndtr(-difference / deviation))


def detectable(deviation: float) -> float:
    """The smallest true difference that one run of each shows with 80 % chance in a two-sided 5 % test."""
    return float((-special.ndtri(ALPHA / 2) + special.ndtri(POWER)) * deviation)


def of_row(
    row: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], names: Sequence[str]
) -> list[PrintedBenchmark]:
    """The benchmarks of a printed row. row: benchmark → metric → percent."""
    return [PrintedBenchmark(sizes[b], row[b]["mean"] / 100, row[b]["pass@32"] / 100) for b in names]
