"""Figures of ablations: metrics over ρ (the paper's Figure 3), and two evaluations problem by problem."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ngrpo.report.axes import at_values, linear
from ngrpo.report.drawing import styles
from ngrpo.report.figures import TALL, TableRow, columns, metric_title
from ngrpo.report.panel import Band, Dots, Line, Mark, Panel

_RHO = re.compile(r"ρ = (\d*\.?\d+)")


def over_rho(table: Sequence[TableRow], *, interval: str = "problems") -> Panel | None:
    """Headline metrics over ρ with 95 % intervals, one line a metric (paper Figure 3); None without such rows.

    table: rows of one model and benchmark of a table whose labels say ρ ("ρ = 0.15"); values as shares.
    """
    by_metric: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        own = pd.isna(row["against"]) and row["headline"] and row["estimator"] != "bootstrap"
        if own and (rho := _RHO.search(row["label"])) and not np.isnan(row["value"]):
            by_metric.setdefault(metric_title(row), []).append({**row, "rho": float(rho[1])})
    if not by_metric:
        return None
    looks, marks = styles(by_metric), list[Mark]()
    ends, all_rho = [], set[float]()
    for title, part in by_metric.items():
        part.sort(key=lambda row: row["rho"])
        rho, value, low, high = columns(part, "rho", "value", f"{interval}_low", f"{interval}_high")
        marks.append(Band(rho, 100 * low, 100 * high, looks[title]))
        marks.append(Line(rho, 100 * value, title, looks[title], marks=True))
        ends += [100 * low, 100 * high]
        all_rho |= set(rho.tolist())
    y = linear(np.concatenate(ends))
    return Panel("Values over ρ (%)", at_values(sorted(all_rho)), y, marks, "ρ", TALL, legend=True)


def better_and_worse(first: pd.DataFrame, second: pd.DataFrame) -> tuple[int, int, int]:
    """How many problems the second evaluation solves more often than the first, how many less often, of how many."""
    both = _solved_shares(first, second)
    return int((both["second"] > both["first"]).sum()), int((both["second"] < both["first"]).sum()), len(both)


def _solved_shares(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Each common problem's share of correct samples in both."""
    shares = [
        (grades["grade"] == "correct").groupby(grades["problem_id"].astype(str)).mean() for grades in (first, second)
    ]
    return pd.concat(shares, axis=1, join="inner", keys=["first", "second"])


def by_problem(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> Panel | None:
    """Each problem's share of correct samples in two evaluations, sorted by the first; None where no problem is common.

    first, second: tables of grades (problem_id, grade). Points above the line are problems that the second solves more
    often.
    """
    both = _solved_shares(first, second).sort_values(["first", "second"])
    if both.empty:
        return None
    looks, place = styles(names), np.arange(1, len(both) + 1, dtype=float)
    values = 100 * both.to_numpy(dtype=float)
    marks: list[Mark] = [
        Line(place, values[:, 0], names[0], looks[names[0]]),
        Dots(place, values[:, 1], names[1], looks[names[1]], size=1.6),
    ]
    label = f"problems, by {names[0]}"
    title = "Correct samples of each problem (%)"
    return Panel(title, linear(place, whole=True), linear(values), marks, label, TALL, legend=True)
