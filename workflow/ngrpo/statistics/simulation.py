"""Studies whose truth is known: counts of two systems on a benchmark, from a shape of pass rates and declared noise.

The model is that of ngrpo.statistics.pass_rates. True effects are computed by quadrature, not by simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ngrpo.statistics.pass_rates import DECLARED, LogitNoise, Shape, estimators, expected, on_grid

LARGEST, HALVINGS = 8.0, 30
"""Of the effects in log-odds among which a study's own is sought."""


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
    noise: LogitNoise = DECLARED,
    n: int = 32,
) -> Drawn:
    """So many studies of two systems on one benchmark; effect: log-odds by which the first is better."""
    return simulate_average([(shape, problems)], seeds, studies, rng, effect=effect, noise=noise, n=n)[0]


def simulate_average(
    shapes: Sequence[tuple[Shape, int]],
    seeds: int,
    studies: int,
    rng: np.random.Generator,
    *,
    effect: float = 0.0,
    noise: LogitNoise = DECLARED,
    n: int = 32,
    on_these: tuple[str, float] | None = None,
) -> list[Drawn]:
    """As `simulate`, on several benchmarks (shape, problems) whose seeds are the same runs.

    on_these: an estimator and a size. Every study's effect is then the one whose average over its own problems has that
    size, which is what an effect is on these benchmarks.
    """
    runs = [noise.draw(rng, noise.run, (studies, seeds)) for _ in range(2)]
    owns = []
    for shape, size in shapes:
        base = shape.draw(rng, (studies, size))
        owns.append([base + noise.draw(rng, noise.method_problem, base.shape) for _ in range(2)])
    tables = {name: expected(g, float(np.hypot(noise.run, noise.run_problem))) for name, g in estimators(n).items()}
    shift = np.full(studies, effect) if on_these is None else _shift(owns, tables[on_these[0]], on_these[1])
    drawn = []
    for (shape, _), (first, other) in zip(shapes, owns, strict=True):
        first = first + shift[:, None]
        chances = [expit(trained(own, run, rng, noise)) for own, run in zip((first, other), runs, strict=True)]
        these = {k: on_grid(t, first).mean(-1) - on_grid(t, other).mean(-1) for k, t in tables.items()}
        mixed = noise.method_problem
        overall = {k: shape.mean(t, effect, mixed) - shape.mean(t, 0.0, mixed) for k, t in tables.items()}
        drawn.append(Drawn(*_counts(rng, chances[0], chances[1], n, noise.shared), these, overall))
    return drawn


def _shift(owns: Sequence[Sequence[np.ndarray]], table: np.ndarray, size: float) -> np.ndarray:
    """Log-odds (R,) by which each study's first system must be better to be so much better on its own problems."""
    low, high = np.full(len(owns[0][0]), -LARGEST), np.full(len(owns[0][0]), LARGEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        gains = [on_grid(table, a + middle[:, None]).mean(-1) - on_grid(table, b).mean(-1) for a, b in owns]
        short = np.mean(gains, axis=0) < size
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray((low + high) / 2)


def policies(
    base: np.ndarray, run: np.ndarray, rng: np.random.Generator, noise: LogitNoise
) -> tuple[np.ndarray, np.ndarray]:
    """One method's log-odds of problems (R, N), and those of its trained policies (R, S, N). run: (R, S)."""
    own = base + noise.draw(rng, noise.method_problem, base.shape)
    return own, trained(own, run, rng, noise)


def trained(own: np.ndarray, run: np.ndarray, rng: np.random.Generator, noise: LogitNoise) -> np.ndarray:
    """Log-odds of a method's trained policies (R, S, N). own: the method's (R, N); run: (R, S)."""
    size = (*run.shape, own.shape[-1])
    return own[:, None] + run[..., None] + noise.draw(rng, noise.run_problem, size)


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
