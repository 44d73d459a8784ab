"""How much chance there is between runs, measured from finished ones: the three standard deviations of
ngrpo.statistics.pass_rates.LogitNoise, from samples of methods that were trained with several seeds.

| symbol | meaning |
|---|---|
| x[m, s, i, j] | whether sample j of problem i is correct under method m trained with seed s |
| p[m, s, i] | the chance of that |
| d[i] | p(1 − p): by how much a problem's chance moves for one of log-odds |

Squares and products of chances are taken from different samples (x[j] x[k], j ≠ k), so that neither the samples' own
noise nor the sample seeds that systems share count as differences: all estimates are unbiased on the scale of chances.
Divided by Σ d² (or Σ Σ d d', for what moves all problems at once) they are variances of log-odds.

- run × problem: half the squared difference of two seeds of a method, without the part that all problems share.
- run: the products of two seeds' differences on two different problems.
- method × problem: half the squared difference of two methods' means over seeds, without the part that all share.

Pooled over methods and benchmarks, as log-odds don't depend on how hard a benchmark is. Intervals: of the first and the
third variance the jackknife over problems (Quenouille 1956, Tukey 1958); of `run` that of a variance between so few
runs (χ², Williams 1962).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from ngrpo.statistics.effects import CONFIDENCE
from ngrpo.statistics.pass_rates import LogitNoise

LEAST_METHODS = 2
LEAST_SEEDS = 3
LEAST_FREEDOM = 4
"""Runs beyond the first of each method: two methods with three seeds."""
LEAST_PROBLEMS = 60
"""Fewer say too little of what a run or a method makes of a problem: a standard deviation is known to a quarter."""
TINY = 1e-12


@dataclass(frozen=True)
class Spread:
    """A standard deviation of log-odds with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasuredNoise:
    """What finished runs say. methods, runs, problems: how many of each."""

    run: Spread
    method_problem: Spread
    run_problem: Spread
    methods: int
    runs: int
    problems: int

    @property
    def noise(self) -> LogitNoise:
        """As studies are planned with."""
        return LogitNoise(self.run.value, self.method_problem.value, self.run_problem.value)


@dataclass(frozen=True)
class _Sums:
    """Sums over a benchmark's problems, a row a problem (N,), of what a variance's numerator and denominator are."""

    runs: np.ndarray
    """Half squared differences of two seeds, meaned over pairs of seeds, over methods."""
    methods: np.ndarray
    """The same of two methods."""
    square: np.ndarray
    """d²."""
    slope: np.ndarray
    """d."""
    seeds: np.ndarray
    """(contrasts, N): orthonormal contrasts of a method's seeds, all methods'."""
    apart: np.ndarray
    """(pairs of methods, N): differences of two methods' means over seeds."""
    inverse: float
    """1/S of the one and of the other of two methods together, meaned over pairs."""


def enough(seeds_of_methods: Sequence[int], problems: int) -> bool:
    """Whether so many seeds of each method and so many problems measure the noise."""
    counted = [seeds for seeds in seeds_of_methods if seeds >= LEAST_SEEDS]
    freedom = sum(seeds - 1 for seeds in counted)
    return len(counted) >= LEAST_METHODS and freedom >= LEAST_FREEDOM and problems >= LEAST_PROBLEMS


def measure_noise(benchmarks: Sequence[Sequence[np.ndarray]]) -> MeasuredNoise:
    """The noise between runs. benchmarks: for each the samples (S, N, n) of 0 and 1 of every method, the methods in the
    same order; n at least 4, two methods at least, two seeds of each at least."""
    sums = [_sums([np.asarray(method, dtype=float) for method in methods]) for methods in benchmarks]
    run, of_run = _run(sums)
    shift = _shift(sums, of_run)
    parts = np.concatenate([np.stack([s.runs, s.methods, s.square]) for s in sums], axis=1)
    values = _variances(parts.sum(1, keepdims=True), of_run, shift)[:, 0]
    left_out = _variances(parts.sum(1, keepdims=True) - parts, of_run, shift)
    size = parts.shape[1]
    errors = np.sqrt((size - 1) / size * ((left_out - left_out.mean(1, keepdims=True)) ** 2).sum(1))
    reach = special.ndtri((1 + CONFIDENCE) / 2) * errors
    seeds = [len(method) for method in benchmarks[0]]
    return MeasuredNoise(
        run=run,
        method_problem=_spread(values[1], values[1] - reach[1], values[1] + reach[1]),
        run_problem=_spread(values[0], values[0] - reach[0], values[0] + reach[0]),
        methods=len(seeds),
        runs=sum(seeds),
        problems=size,
    )


def _sums(methods: Sequence[np.ndarray]) -> _Sums:
    pairs = [[_product(a, b) for a, b in combinations(method, 2)] for method in methods]
    within = [np.mean([_product(a, a) for a in method], axis=0) for method in methods]
    across = [np.mean(each, axis=0) for each in pairs]
    chances = [method.mean(-1) for method in methods]
    means = [chance.mean(0) for chance in chances]
    apart, squares = [], []
    for (one, a), (other, b) in combinations(enumerate(methods), 2):
        between = np.mean([_product(x, y) for x in a for y in b], axis=0)
        squares.append((across[one] + across[other]) / 2 - between)
        apart.append(means[one] - means[other])
    inverse = [1 / len(a) + 1 / len(b) for a, b in combinations(methods, 2)]
    slope = np.mean([_slope(a) for method in methods for a in method], axis=0)
    return _Sums(
        runs=np.mean([w - c for w, c in zip(within, across, strict=True)], axis=0),
        methods=np.mean(squares, axis=0),
        square=np.mean([_squared_slope(a) for method in methods for a in method], axis=0),
        slope=slope,
        seeds=np.concatenate([_contrasts(len(c)) @ c for c in chances]),
        apart=np.stack(apart),
        inverse=float(np.mean(inverse)),
    )


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """p q from different samples, (N,). a, b: (N, n)."""
    n = a.shape[-1]
    return np.asarray((a.sum(-1) * b.sum(-1) - (a * b).sum(-1)) / (n * (n - 1)))


def _slope(a: np.ndarray) -> np.ndarray:
    n, c = a.shape[-1], a.sum(-1)
    return np.asarray(c * (n - c) / (n * (n - 1)))


def _squared_slope(a: np.ndarray) -> np.ndarray:
    n, c = a.shape[-1], a.sum(-1)
    return np.asarray(c * (c - 1) * (n - c) * (n - c - 1) / (n * (n - 1) * (n - 2) * (n - 3)))


def _contrasts(size: int) -> np.ndarray:
    """Orthonormal contrasts (size − 1, size): Helmert's."""
    rows = [[1.0] * k + [-float(k)] + [0.0] * (size - k - 1) for k in range(1, size)]
    return np.array([np.array(row) / np.linalg.norm(row) for row in rows])


def _off_diagonal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ a[i] b[k] over different problems, along the last axis."""
    return np.asarray(a.sum(-1) * b.sum(-1) - (a * b).sum(-1))


def _run(sums: Sequence[_Sums]) -> tuple[Spread, float]:
    """σ of a run with its interval, and its variance."""
    moved = np.concatenate([s.seeds for s in sums], axis=1)  # a run moves all benchmarks
    slope = np.concatenate([s.slope for s in sums])
    scale = max(float(_off_diagonal(slope, slope)), TINY)
    freedom = len(moved)
    whole = float((moved.sum(-1) ** 2).mean()) / scale
    rest = float((moved**2).sum(-1).mean()) / scale
    tail = (1 - CONFIDENCE) / 2
    low, high = (freedom * whole / special.chdtri(freedom, p) - rest for p in (tail, 1 - tail))
    return _spread(whole - rest, low, high), max(whole - rest, 0.0)


def _shift(sums: Sequence[_Sums], run: float) -> float:
    """The mean squared difference of two methods in log-odds, over all problems at once. run: a run's variance."""
    apart = np.concatenate([s.apart for s in sums], axis=1)
    slope = np.concatenate([s.slope for s in sums])
    both = float(_off_diagonal(apart, apart).mean()) / max(float(_off_diagonal(slope, slope)), TINY)
    return both - run * sums[0].inverse


def _variances(parts: np.ndarray, run: float, shift: float) -> np.ndarray:
    """Of run × problem and of method × problem, (2, M). parts: sums (3, M) of `_Sums`."""
    runs, methods, square = parts
    scale = np.maximum(square, TINY)
    return np.stack([runs / scale - run, methods / scale - shift / 2])


def _spread(variance: float, low: float, high: float) -> Spread:
    value, least, most = (float(np.sqrt(max(v, 0.0))) for v in (variance, low, high))
    return Spread(value, least, most)
