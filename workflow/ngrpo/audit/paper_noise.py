"""How far two runs' printed values lie apart by chance, on the paper's benchmarks, where neither system is better.

How hard a benchmark's problems are is fitted to GRPO's printed row (ngrpo.statistics.fitting), the noise of a run is
declared, not measured: the paper reports no second seed. Each of two runs moves all problems by one draw of `run`, and
each problem by what a method (`method_problem`) and a seed (`run_problem`) bring to it; then n samples are drawn, and
the bootstrap's 1000 draws. Nothing is simulated: expectations are sums over the binomial's n + 1 outcomes and Gauss and
Hermite's nodes, and a mean over 30 to 570 problems is taken for normal (tests/unit/test_paper_noise.py simulates the
same, seeded, and agrees). What no run moves can't be seen so: the two systems' samples are taken for independent.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special

from ngrpo.statistics.effects import CONFIDENCE, POWER
from ngrpo.statistics.estimators import BOOTSTRAP_DRAWS, estimator_values
from ngrpo.statistics.fitting import Scores, extremes, fitted
from ngrpo.statistics.pass_rates import DECLARED, GRID, NODES, WEIGHTS, LogitNoise, Shape, expected, smoothed
from ngrpo.study.declared_costs import COSTS_FILE, CostsFile, DeclaredNoise
from ngrpo.study.reading import read_yaml

FITTED = (16, 32)
"""The k of the printed Pass@k that a shape is fitted to, with Mean@n."""


def as_noise(declared: DeclaredNoise | None) -> LogitNoise:
    """What config/costs.yaml declares, as the statistics take it; without a declaration that of the simulations."""
    return LogitNoise(declared.run, declared.method_problem, declared.run_problem) if declared else DECLARED


def declared_noise(config: Path) -> LogitNoise:
    """The noise between runs that a configuration folder declares. Raises UserError for a broken file."""
    path = config / COSTS_FILE
    return as_noise(read_yaml(CostsFile, path).noise if path.exists() else None)


def difference_deviation(rows: Sequence[Scores], metric: str, noise: LogitNoise) -> float:
    """The standard deviation, as a share, of the difference of two runs' averages over benchmarks.

    rows: GRPO's, one a benchmark; metric: "mean" or "pass@k", by the release's bootstrap.
    """
    return _deviation([fitted(row, noise) for row in rows], rows, metric, noise)


def deviation_range(rows: Sequence[Scores], metric: str, noise: LogitNoise) -> tuple[float, float]:
    """The least and the largest that it is under any shape that has the printed scores."""
    g = tuple(_values(rows[0], metric))
    ends = zip(*(extremes(row, g, noise) for row in rows), strict=True)
    least, most = (_deviation(shapes, rows, metric, noise) for shapes in ends)
    best = difference_deviation(rows, metric, noise)  # of several benchmarks, which share runs, hardly beyond an end
    return min(least, best), max(most, best)


def _values(row: Scores, metric: str) -> np.ndarray:
    return estimator_values(metric, "bootstrap", row.samples)


@cache
def _tables(samples: int, metric: str, noise: LogitNoise) -> np.ndarray:
    """Over GRID: a problem's variance in one run (its draws included); then its value where the run moves all problems
    by each of NODES."""
    g = estimator_values(metric, "bootstrap", samples)
    own = float(np.hypot(noise.method_problem, noise.run_problem))
    drawn = g * (1 - g) / BOOTSTRAP_DRAWS if metric != "mean" else np.zeros_like(g)
    value = expected(g, own)
    inside = smoothed(expected(g**2 + drawn, own) - value**2, noise.run)
    return np.stack([inside, *(np.interp(GRID + noise.run * node, GRID, value) for node in NODES)])


def _deviation(shapes: Sequence[Shape], rows: Sequence[Scores], metric: str, noise: LogitNoise) -> float:
    tables = _tables(rows[0].samples, metric, noise)
    inside, runs = 0.0, np.zeros(len(NODES))
    for shape, row in zip(shapes, rows, strict=True):
        one, *moved = shape.means(tables)
        inside += one / (row.problems * len(rows) ** 2)
        runs += np.array(moved) / len(rows)
    return float(np.sqrt(2 * (inside + runs**2 @ WEIGHTS - (runs @ WEIGHTS) ** 2)))


def chance_of(difference: float, deviation: float) -> float:
    """How often a difference at least as large, in the same direction, comes up where there is none."""
    return float(special.ndtr(-difference / deviation))


def detectable(deviation: float) -> float:
    """The smallest true difference that one run of each shows with 80 % chance in a two-sided 5 % test."""
    return float((-special.ndtri((1 - CONFIDENCE) / 2) + special.ndtri(POWER)) * deviation)


def of_row(
    row: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], names: Sequence[str], samples: int = 32
) -> list[Scores]:
    """The benchmarks of a printed row. row: benchmark → metric → percent."""
    return [
        Scores(
            sizes[b],
            row[b]["mean"] / 100,
            tuple((k, row[b][f"pass@{k}"] / 100) for k in FITTED if f"pass@{k}" in row[b]),
            samples,
        )
        for b in names
    ]
