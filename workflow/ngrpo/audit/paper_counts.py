"""What the paper's printed percentages are as counts: which are possible, and how many solved problems fit them.

| symbol | meaning |
|---|---|
| N, n | problems of a benchmark (Table 7); samples of a problem, 32 (§4.1) |
| C | correct samples of all N · n |
| h[c] | problems with c of their n samples correct, c = 0 … n |
| M | problems with at least one correct sample: N − h[0] |

A printed Mean@32 is 100 · C/(N · n), rounded. Pass@k is Σ h[c] · g(c)/N, where g is an estimator's vector of values
(ngrpo.statistics.estimators). By Eq. 15 Pass@n is 100 · M/N. Which M fit the printed values of a cell by the bootstrap
is asked of a linear program over h ≥ 0: the least and the largest Σ h[c], c ≥ 1, with N problems, C correct samples and
each printed Pass@k within its tolerance. It lets h be fractions, so a range is never too narrow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, sqrt

import numpy as np
from scipy.optimize import linprog

from ngrpo.statistics.estimators import BOOTSTRAP_DRAWS, bootstrap_pass_at_k
from ngrpo.study.paper_values import AVERAGE, PaperValues

HALF = 0.005
"""Points by which rounding to two decimals may move a percentage."""
SLACK = 1e-9
DRAWS_SIGMAS = 3
"""Standard deviations of the bootstrap's 1000 draws that a printed Pass@k may lie off."""


@dataclass(frozen=True)
class PrintedCell:
    """One system on one model and benchmark. values: metric → percent as printed."""

    table: str
    model: str
    label: str
    benchmark: str
    values: dict[str, float]


def printed_cells(paper: PaperValues) -> list[PrintedCell]:
    """Every printed cell but averages, in the tables' order; the same numbers again in another table count once."""
    cells: dict[tuple[object, ...], PrintedCell] = {}
    for table, part in paper.tables.items():
        for model, rows in part.values.items():
            for label, row in rows.items():
                for benchmark, values in row.items():
                    if benchmark != AVERAGE:
                        shares = {str(metric): value for metric, value in values.items()}
                        cell = PrintedCell(table, model, label, benchmark, shares)
                        cells.setdefault((model, benchmark, *sorted(shares.items())), cell)
    return list(cells.values())


def whole_count(percent: float, trials: int) -> int | None:
    """The number of `trials` that is printed as this percentage, or None where no number is."""
    count = round(percent / 100 * trials)
    return count if abs(100 * count / trials - percent) <= HALF + SLACK else None


def solved_range(cell: PrintedCell, problems: int, samples: int) -> tuple[int, int] | None:
    """The least and the largest number of solved problems that fit a cell by the bootstrap, or None where none does."""
    return _solved(tuple(sorted(cell.values.items())), problems, samples)


@cache
def _solved(values: tuple[tuple[str, float], ...], problems: int, samples: int) -> tuple[int, int] | None:
    correct = np.arange(samples + 1, dtype=float)
    equal, equals = [np.ones(samples + 1)], [float(problems)]
    below, limits = [], []
    for metric, percent in values:
        if metric == "mean":
            count = whole_count(percent, problems * samples)
            if count is None:
                return None
            equal.append(correct)
            equals.append(float(count))
            continue
        g = bootstrap_pass_at_k(samples, int(metric.partition("@")[2]))
        drawn = DRAWS_SIGMAS * sqrt(problems * float((g * (1 - g)).max()) / BOOTSTRAP_DRAWS)
        room = problems * HALF / 100 + drawn + SLACK
        below += [g, -g]
        limits += [problems * percent / 100 + room, room - problems * percent / 100]
    ends = []
    for sign in (1, -1):
        fitting = linprog(
            sign * (correct > 0), A_ub=np.array(below), b_ub=limits, A_eq=np.array(equal), b_eq=equals, method="highs"
        )
        if not fitting.success:
            return None
        ends.append(sign * fitting.fun)
    least, most = ceil(ends[0] - 1e-6), floor(ends[1] + 1e-6)
    return (least, most) if least <= most else None


def average_misses(paper: PaperValues) -> Iterator[float]:
    """By how many points each printed average misses the mean of the printed values that it is of; the same row again
    in another table counts once."""
    seen: list[tuple[str, object]] = []
    for part in paper.tables.values():
        for model, rows in part.values.items():
            for row in rows.values():
                if (model, row) in seen:
                    continue
                seen.append((model, row))
                for metric, printed in row.get(AVERAGE, {}).items():
                    parts = [values[metric] for name, values in row.items() if name != AVERAGE]
                    yield abs(sum(parts) / len(parts) - printed)


def paired_counts(paper: PaperValues, problems: int) -> dict[str, int | None]:
    """Table 9 as numbers of problems; its percentages are printed to one decimal."""
    shares = paper.paired.model_dump()
    return {name: _of_one_decimal(percent, problems) for name, percent in shares.items()}


def _of_one_decimal(percent: float, problems: int) -> int | None:
    count = round(percent / 100 * problems)
    return count if abs(100 * count / problems - percent) <= 10 * HALF + SLACK else None
