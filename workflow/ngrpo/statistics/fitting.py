"""How hard a benchmark's problems are, from the scores that are printed of one system: the one model of it, which
`ngrpo power` and `ngrpo audit-paper` share.

| symbol | meaning |
|---|---|
| t[k] | the printed values of a row: Mean@n and each Pass@k, by the bootstrap, as the paper's |
| w[j] | shares of problems: normals of log-odds of sd 1 around −8, −7.5 … 8, one never and one always solved |
| K[k, j] | what a metric is on average where all problems are of part j, the noise of a run averaged over |

A few printed numbers don't say what a distribution is. `fitted` takes of all w with K w = t the one nearest to even
shares, i.e. that says least besides (maximum entropy, Jaynes 1957); the problem is convex and has one solution. As
printed values are rounded and drawn, K w may miss t a little where it costs much (ridge, Dudík et al. 2004).
`extremes` are the two w, within the printed values' own error, between which every other lies in how much two runs
differ: two linear programs. Which families of shapes were compared: docs/statistics.md.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special
from scipy.optimize import linprog

from ngrpo.statistics.estimators import BOOTSTRAP_DRAWS, bootstrap_pass_at_k, unbiased_pass_at_k
from ngrpo.statistics.pass_rates import DECLARED, LogitNoise, Shape, expected, on_grid, smoothed

CENTERS = np.arange(-8.0, 8.25, 0.5)
"""Beyond ±8 one sample of 3000 differs: 32 of each problem say nothing of it."""
WIDTH = 1.0
"""Of a part, in log-odds: no shape is more rugged than that."""
FOREVER = 15.0
"""Log-odds, to either side, of a problem that is practically always (never) solved."""
RIDGE = 1e-7
"""Of the fit: moves a value by about 0.01 points."""
STEPS = 100
CLOSE = 1e-9
HALF = 0.5e-4
"""By how much rounding to 0.01 points moves a share."""
DRAWS_SIGMAS = 2
"""Standard deviations of the bootstrap's draws that a shape may miss a printed Pass@k by."""


@dataclass(frozen=True)
class Scores:
    """A system's scores on a benchmark, as shares. pass_at: (k, Pass@k by the bootstrap) each."""

    problems: int
    mean: float
    pass_at: tuple[tuple[int, float], ...]
    samples: int = 32

    @property
    def values(self) -> np.ndarray:
        """Mean@n and each Pass@k."""
        return np.array([self.mean, *(value for _, value in self.pass_at)])


@cache
def _estimators(row: Scores) -> tuple[np.ndarray, ...]:
    passes = [bootstrap_pass_at_k(row.samples, k) for k, _ in row.pass_at]
    return (unbiased_pass_at_k(row.samples, 1), *passes)


def _of_parts(tables: np.ndarray) -> np.ndarray:
    """Tables over GRID (T, 1601), averaged over each part; (T, parts)."""
    ends = on_grid(tables, np.array([-FOREVER, FOREVER]))
    middle = np.array([smoothed(table, WIDTH) for table in tables])
    return np.concatenate([on_grid(middle, CENTERS), ends], axis=-1)


@cache
def _parts(samples: int, ks: tuple[int, ...], noise: LogitNoise) -> np.ndarray:
    """K, of Mean@n and each Pass@k."""
    return _of_parts(np.array([expected(g, noise.whole) for g in _estimators(_blank(samples, ks))]))


def _blank(samples: int, ks: tuple[int, ...]) -> Scores:
    return Scores(0, 0.0, tuple((k, 0.0) for k in ks), samples)


def _matrix(row: Scores, noise: LogitNoise) -> np.ndarray:
    return _parts(row.samples, tuple(k for k, _ in row.pass_at), noise)


def _shape(shares: np.ndarray) -> Shape:
    """The mixture with these shares of parts; those that nothing lies in are left out."""
    places = [*((float(c), WIDTH) for c in CENTERS), (-FOREVER, 0.0), (FOREVER, 0.0)]
    used = shares > CLOSE
    total = float(shares[used].sum())
    return Shape(tuple((float(w) / total, *at) for w, at, keep in zip(shares, places, used, strict=True) if keep))


@cache
def _shares(row: Scores, noise: LogitNoise) -> np.ndarray:
    """w of the fit: Newton's method on the convex dual, a step halved until it helps."""
    off = _matrix(row, noise) - row.values[:, None]
    at = np.zeros(len(off))

    def dual(at: np.ndarray) -> float:
        return float(special.logsumexp(at @ off) + 0.5 * RIDGE * at @ at)

    for _ in range(STEPS):
        shares = special.softmax(at @ off)
        slope = off @ shares + RIDGE * at
        spread = (off * shares) @ off.T - np.outer(off @ shares, off @ shares)
        step = np.linalg.solve(spread + RIDGE * np.eye(len(at)), -slope)
        gain, size = float(slope @ step), 1.0
        while dual(at + size * step) > dual(at) + 1e-4 * size * gain and size > CLOSE:
            size /= 2
        at = at + size * step
        if -gain < CLOSE:
            break
    return np.asarray(special.softmax(at @ off))


@cache
def fitted(row: Scores, noise: LogitNoise = DECLARED) -> Shape:
    """How problems' log-odds are distributed where a system under this noise has these scores."""
    return _shape(_shares(row, noise))


def misses(shape: Shape, row: Scores, noise: LogitNoise = DECLARED) -> np.ndarray:
    """By how much a shape's Mean@n and Pass@k miss the row's, as shares."""
    tables = np.array([expected(g, noise.whole) for g in _estimators(row)])
    return shape.means(tables) - row.values


def one_run(g: np.ndarray, noise: LogitNoise = DECLARED) -> np.ndarray:
    """The variance of a problem's value in one run, at the base log-odds of GRID: all noise, and samples."""
    return smoothed(g_square(g), noise.whole) - expected(g, noise.whole) ** 2


def g_square(g: np.ndarray) -> np.ndarray:
    """E g[C]² over GRID."""
    return expected(g**2)


@cache
def extremes(row: Scores, g: tuple[float, ...], noise: LogitNoise = DECLARED) -> tuple[Shape, Shape]:
    """The shapes with this row's scores under which one run's value varies least and most. g: of which estimator."""
    matrix, best = _matrix(row, noise), _shares(row, noise)
    variance = _of_parts(one_run(np.array(g), noise)[None])[0]
    drawn = [_of_parts(expected(v * (1 - v), noise.whole)[None])[0] @ best for v in _estimators(row)[1:]]
    error = HALF + DRAWS_SIGMAS * np.sqrt(np.array([0.0, *drawn]) / (BOOTSTRAP_DRAWS * row.problems))
    room = np.maximum(error, (1 + CLOSE) * np.abs(matrix @ best - row.values))
    ends = []
    for sign in (1, -1):
        solution = linprog(
            sign * variance,
            A_ub=np.concatenate([matrix, -matrix]),
            b_ub=np.concatenate([row.values + room, room - row.values]),
            A_eq=np.ones((1, len(best))),
            b_eq=[1.0],
            method="highs",
        )
        ends.append(_shape(solution.x if solution.success else best))
    return ends[0], ends[1]
