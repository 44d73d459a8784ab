"""How hard problems are, and how much chance there is: distributions of log-odds, noise on that scale, and what they
make of an estimator.

Log-odds that a sample of problem i under method m trained with seed s is correct:
base[i] + effect[m] + method × problem (sd `method_problem`) + seed (`run`) + seed × problem (`run_problem`).
`Shape` is the distribution of base[i]; ngrpo.statistics.fitting fits one to printed scores.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import special

from ngrpo.statistics.estimators import bootstrap_pass_at_k, count_chances, unbiased_pass_at_k

GRID = np.linspace(-20, 20, 1601)
"""Log-odds at which expectations are tabulated."""
PER_UNIT = (len(GRID) - 1) / (GRID[-1] - GRID[0])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def on_grid(tables: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Tables over GRID (…, 1601) at these log-odds, linear between; the last value beyond the ends. As `np.interp`,
    several tables at once and without its search."""
    place = np.clip((log_odds - GRID[0]) * PER_UNIT, 0.0, len(GRID) - 1)
    below = np.minimum(place.astype(np.intp), len(GRID) - 2)
    low = tables[..., below]
    return np.asarray(low + (place - below) * (tables[..., below + 1] - low))


@dataclass(frozen=True)
class Shape:
    """A distribution of problems' log-odds: a mixture of normals, (share, mean, sd) each; shares sum to 1."""

    parts: tuple[tuple[float, float, float], ...]

    @cached_property
    def _columns(self) -> np.ndarray:
        """Shares, means and sds, (3, parts)."""
        return np.array(self.parts).T

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Log-odds of so many problems."""
        share, mean, sd = self._columns
        which = rng.choice(len(share), size=size, p=share / share.sum())
        return np.asarray(mean[which] + sd[which] * rng.normal(size=size))

    def mean(self, table: np.ndarray, shift: float = 0.0, sd: float = 0.0) -> float:
        """The mean over problems of a table over GRID, log-odds moved by shift and by noise of that sd."""
        return float(self.means(table[None], shift, sd)[0])

    def means(self, tables: np.ndarray, shift: float = 0.0, sd: float = 0.0) -> np.ndarray:
        """The same of several tables (T, 1601) at once; shape (T,)."""
        share, mean, own = self._columns
        places = mean[:, None] + shift + np.hypot(own, sd)[:, None] * NODES
        return np.asarray(on_grid(tables, places) @ WEIGHTS @ share)


@dataclass(frozen=True)
class LogitNoise:
    """Standard deviations on the scale of log-odds; tails: degrees of freedom of Student's t that all of them follow
    (infinite: normal); shared: share of the samples whose random numbers two systems have in common."""

    run: float = 0.1
    method_problem: float = 0.3
    run_problem: float = 0.3
    tails: float = np.inf
    shared: float = 0.0

    @property
    def whole(self) -> float:
        """The standard deviation of all of them together: between a problem's base and a trained policy's chance."""
        return float(np.sqrt(self.run**2 + self.method_problem**2 + self.run_problem**2))

    def draw(self, rng: np.random.Generator, sd: float, size: tuple[int, ...]) -> np.ndarray:
        """Draws of this sd."""
        if np.isinf(self.tails):
            return sd * rng.normal(size=size)
        return sd * np.sqrt((self.tails - 2) / self.tails) * rng.standard_t(self.tails, size)


DECLARED = LogitNoise()
"""As config/costs.yaml declares it until runs have measured it."""
NONE = LogitNoise(0.0, 0.0, 0.0)
"""Other samples of the same weights, nothing else."""
SHAPES = {
    "mass at 0 and 1": Shape(((0.35, -7.0, 2.0), (0.35, 7.0, 2.0), (0.3, 0.0, 1.5))),
    "nearly 0": Shape(((1.0, -6.5, 1.5),)),
}


@cache
def estimators(n: int, ks: tuple[int, ...] = (16, 32)) -> dict[str, np.ndarray]:
    """Mean@n and both Pass@k by name, as vectors over c = 0 … n."""
    named = {f"Mean@{n}": unbiased_pass_at_k(n, 1)}
    for k in ks:
        named[f"Pass@{k} unbiased"] = unbiased_pass_at_k(n, k)
        named[f"Pass@{k} bootstrap"] = bootstrap_pass_at_k(n, k)
    return named


def covariance(g: np.ndarray, shared: float) -> np.ndarray:
    """Cov(g[A], g[B]) at the log-odds of GRID of two systems with the same chance of success, which share the random
    numbers of that share of their samples."""
    same = round((len(g) - 1) * shared)
    given = np.lib.stride_tricks.sliding_window_view(g, len(g) - same) @ _chances(len(g) - 1 - same)
    return np.asarray((given**2 * _chances(same)).sum(0) - (given * _chances(same)).sum(0) ** 2)


def covariance_left(apart: np.ndarray, sd: float) -> np.ndarray:
    """How much of that covariance is left where their log-odds are so far apart, give or take sd: of two single samples
    with chances p < q of one uniform number the correlation is sqrt(odds p / odds q) = exp(−distance/2)."""
    if not sd:
        return np.asarray(np.exp(-np.abs(apart) / 2))
    far = apart / sd
    left, right = (special.ndtr(side * far - sd / 2) * np.exp(sd**2 / 8 - side * apart / 2) for side in (1, -1))
    return np.asarray(left + right)


def expected(g: np.ndarray, sd: float = 0.0) -> np.ndarray:
    """E g[C] at the log-odds of GRID, averaged over noise of this sd; C ~ Binomial(n, expit(log-odds + noise))."""
    return smoothed(g @ _chances(len(g) - 1), sd)


@cache
def _chances(n: int) -> np.ndarray:
    return count_chances(n, GRID)


def smoothed(table: np.ndarray, sd: float) -> np.ndarray:
    """A table over GRID, averaged over normal noise of this sd."""
    if not sd:
        return table
    places = sd * NODES * PER_UNIT
    reach = int(np.ceil(np.abs(places).max())) + 1
    below = np.floor(places).astype(np.intp)
    kernel = np.zeros(2 * reach + 1)  # of nodes between points of the grid: linear, as np.interp
    np.add.at(kernel, reach - below, WEIGHTS * (1 - (places - below)))
    np.add.at(kernel, reach - below - 1, WEIGHTS * (places - below))
    return np.convolve(np.pad(table, reach, mode="edge"), kernel, mode="valid")
