"""Studies whose truth is known: counts of two systems on a benchmark, from a shape of pass rates and declared noise.

Log-odds that a sample of problem i under method m trained with seed s is correct:
base[i] + effect[m] + method × problem (sd `method_problem`) + seed (`run`) + seed × problem (`run_problem`).
The true effects are computed by quadrature, not by simulation; so is what each source of error adds (`components`),
which is what `ngrpo power` predicts from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special
from scipy.special import expit

from ngrpo.statistics.estimators import bootstrap_pass_at_k, count_chances, unbiased_pass_at_k

GRID = np.linspace(-20, 20, 1601)
"""Log-odds at which expectations are tabulated."""
PER_UNIT = (len(GRID) - 1) / (GRID[-1] - GRID[0])
NEVER = -12.0
"""Log-odds of a problem that is practically never solved."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
START = ((-2.0, 1.0), (-1.0, 1.0), (-4.0, 0.7))
"""Log-odds of never, and log of the spread, from which a fit starts; the mean starts where the pass rate is."""
MISS = 0.05
"""Points by which a fit may miss what it is fitted to; else the next start is tried."""


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

    def draw(self, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
        """Log-odds of so many problems."""
        share, mean, sd = (np.array(column) for column in zip(*self.parts, strict=True))
        which = rng.choice(len(share), size=size, p=share)
        return mean[which] + sd[which] * rng.normal(size=size)

    def mean(self, table: np.ndarray, shift: float = 0.0, sd: float = 0.0) -> float:
        """The mean over problems of a table over GRID, log-odds moved by shift and by noise of that sd."""
        return float(self.means(table[None], shift, sd)[0])

    def means(self, tables: np.ndarray, shift: float = 0.0, sd: float = 0.0) -> np.ndarray:
        """The same of several tables (T, 1601) at once; shape (T,)."""
        parts = [w * (on_grid(tables, m + shift + np.hypot(s, sd) * NODES) @ WEIGHTS) for w, m, s in self.parts]
        return np.asarray(sum(parts))


@dataclass(frozen=True)
class LogitNoise:
    """Standard deviations on the scale of log-odds; tails: degrees of freedom of Student's t that all of them follow
    (infinite: normal); shared: share of the samples whose random numbers two systems have in common."""

    run: float = 0.1
    method_problem: float = 0.3
    run_problem: float = 0.3
    tails: float = np.inf
    shared: float = 0.0

    def draw(self, rng: np.random.Generator, sd: float, size: tuple[int, ...]) -> np.ndarray:
        """LogitNoise of this sd."""
        if np.isinf(self.tails):
            return sd * rng.normal(size=size)
        return sd * np.sqrt((self.tails - 2) / self.tails) * rng.standard_t(self.tails, size)


DECLARED = LogitNoise()
"""As config/costs.yaml declares it until runs have measured it."""
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


@cache
def fitted(mean: float, targets: tuple[tuple[int, float], ...], n: int = 32) -> Shape:
    """The shape with this Mean@n and these Pass@k ((k, value), by the bootstrap, as the paper's): a share of problems
    that are never solved, and a normal of log-odds. All within [0, 1]."""
    values = [unbiased_pass_at_k(n, 1), *(bootstrap_pass_at_k(n, k) for k, _ in targets)]
    tables = np.array([expected(g, LogitNoise().run_problem) for g in values])
    wanted = np.array([mean, *(value for _, value in targets)])

    def shape(parameters: np.ndarray) -> Shape:
        never = float(expit(parameters[0]))
        return Shape(((never, NEVER, 0.0), (1 - never, float(parameters[1]), float(np.exp(parameters[2])))))

    def misses(parameters: np.ndarray) -> np.ndarray:
        return np.append(100 * (shape(parameters).means(tables) - wanted), 0.01 * (parameters[0] + 2))

    bounds = ([-8, -14, -3], [8, 14, 2])
    center = float(np.clip(np.log(max(mean, 1e-4) / max(1 - mean, 1e-4)), -9, 9))
    best = None
    for never, spread in START:
        fit = optimize.least_squares(misses, (never, center, spread), bounds=bounds)
        best = fit if best is None or fit.cost < best.cost else best
        if np.abs(misses(best.x)[:-1]).max() < MISS:
            break
    assert best is not None
    return shape(best.x)


@dataclass(frozen=True)
class Drawn:
    """Simulated studies. a, b: counts (R, S, N); truth: of each estimator, (R,) of these problems, and of all."""

    a: np.ndarray
    b: np.ndarray
    these: dict[str, np.ndarray]
    all: dict[str, float]


def simulate(
    shape: Shape,
    problems: int,
    seeds: int,
    studies: int,
    rng: np.random.Generator,
    *,
    effect: float = 0.0,
    noise: LogitNoise = LogitNoise(),
    n: int = 32,
    runs: tuple[np.ndarray, np.ndarray] | None = None,
) -> Drawn:
    """So many studies of two systems on one benchmark; effect: log-odds by which the first is better.

    runs: each system's seed effects (R, S), where several benchmarks share them.
    """
    base = shape.draw(rng, (studies, problems))
    odds: list[np.ndarray] = []
    these: dict[str, np.ndarray] = {}
    overall: dict[str, float] = {}
    within = float(np.hypot(noise.run, noise.run_problem))
    tables = {name: expected(g, within) for name, g in estimators(n).items()}
    for side, shift in enumerate((effect, 0.0)):
        run = runs[side] if runs else noise.draw(rng, noise.run, (studies, seeds))
        own, trained = policies(base + shift, run, rng, noise)
        odds.append(trained)
        sign = 1 - 2 * side
        for name, table in tables.items():
            these[name] = these.get(name, np.zeros(studies)) + sign * np.interp(own, GRID, table).mean(-1)
            overall[name] = overall.get(name, 0.0) + sign * shape.mean(table, shift, noise.method_problem)
    a, b = _counts(rng, expit(odds[0]), expit(odds[1]), n, noise.shared)
    return Drawn(a, b, these, overall)


def policies(
    base: np.ndarray, run: np.ndarray, rng: np.random.Generator, noise: LogitNoise
) -> tuple[np.ndarray, np.ndarray]:
    """One method's log-odds of problems (R, N), and those of its trained policies (R, S, N). run: (R, S)."""
    own = base + noise.draw(rng, noise.method_problem, base.shape)
    size = (*run.shape, base.shape[-1])
    return own, own[:, None] + run[..., None] + noise.draw(rng, noise.run_problem, size)


def _counts(
    rng: np.random.Generator, p: np.ndarray, q: np.ndarray, n: int, shared: float
) -> tuple[np.ndarray, np.ndarray]:
    """Correct samples of n with chances p and q, a share of them drawn with the same uniform numbers."""
    same = round(n * shared)
    a, b = rng.binomial(n - same, p), rng.binomial(n - same, q)
    if same:
        low, high = np.minimum(p, q), np.maximum(p, q)
        fewer = rng.binomial(same, low)
        more = fewer + rng.binomial(same - fewer, (high - low) / np.maximum(1 - low, 1e-300))
        a, b = a + np.where(p < q, fewer, more), b + np.where(p < q, more, fewer)
    return a, b


def simulate_average(
    shapes: Sequence[tuple[Shape, int]],
    seeds: int,
    studies: int,
    rng: np.random.Generator,
    *,
    effect: float = 0.0,
    noise: LogitNoise = LogitNoise(),
) -> list[Drawn]:
    """As `simulate`, on several benchmarks (shape, problems) whose seeds are the same runs."""
    runs = noise.draw(rng, noise.run, (studies, seeds)), noise.draw(rng, noise.run, (studies, seeds))
    return [simulate(s, size, seeds, studies, rng, effect=effect, noise=noise, runs=runs) for s, size in shapes]


@dataclass(frozen=True)
class Components:
    """Variances of a difference of two trained systems on one benchmark, as shares squared. seed: σ²_seed;
    samples: σ² of a problem's samples under a seed; run_problem: σ² of problem × seed; problem: σ²_problem."""

    seed: float
    samples: float
    run_problem: float
    problem: float


def components(shape: Shape, g: np.ndarray, noise: LogitNoise = LogitNoise(), effect: float = 0.0) -> Components:
    """What each source adds to a difference, by quadrature over the shape (independent samples)."""
    first, second = expected(g), expected(g**2)
    within = float(np.hypot(noise.run, noise.run_problem))
    slope = np.gradient(smoothed(first, noise.run_problem), GRID)
    total = samples = seed = problem = 0.0
    own = smoothed(first, within)
    for shift in (effect, 0.0):
        total += shape.mean(smoothed(second, within) - own**2, shift, noise.method_problem)
        samples += shape.mean(smoothed(second - first**2, within), shift, noise.method_problem)
        seed += (noise.run * shape.mean(slope, shift, noise.method_problem)) ** 2
        problem += shape.mean(smoothed(own**2, noise.method_problem) - smoothed(own, noise.method_problem) ** 2, shift)
    means = smoothed(own, noise.method_problem)
    gain = np.interp(GRID + effect, GRID, means) - means
    problem += shape.mean(gain**2) - shape.mean(gain) ** 2
    return Components(seed, samples, max(0.0, total - samples - seed), problem)
