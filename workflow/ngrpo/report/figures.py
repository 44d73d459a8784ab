"""Figures of training and of evaluations: training curves, Pass@k over k, values with both intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ngrpo.report.axes import doublings, linear, logarithmic, rows
from ngrpo.report.curves import Curve
from ngrpo.report.drawing import Style, styles
from ngrpo.report.panel import Band, Bar, Dots, Limit, Line, Mark, Panel

TableRow = Mapping[str, Any]
"""A row of a table's file (ngrpo.report.tables.SCHEMA)."""
SMOOTHING = 9
"""Steps of the moving mean in training curves."""
FEW_POINTS = 15
"""Up to so many points a curve is drawn as it is, with markers."""
BANDED = 3
"""Up to so many systems have bands, or single steps, in one panel; more lie on one another until nothing is seen."""
TALL = 2.7
"""Height of a panel whose axis below has a label, in inches."""


# --- training curves ---


def training_curve(
    curve: Curve,
    logs: Mapping[str, pd.DataFrame],
    *,
    looks: Mapping[str, Style] | None = None,
    limits: Iterable[float] = (),
    chosen: Mapping[str, int] | None = None,
    legend: bool = False,
) -> Panel | None:
    """One curve of all runs over steps; None where no run logged it.

    logs: label → one row a step with columns `step` and curve.column. looks: label → style. limits: horizontal lines
    (parity). chosen: label → the step whose checkpoint was exported, ringed.
    """
    looks, marks = looks or styles(logs), list[Mark]()
    for label, log in logs.items():
        marks += _logged(curve, label, log, looks[label], (chosen or {}).get(label), faint=len(logs) <= BANDED)
    lines = [mark for mark in marks if isinstance(mark, Line)]
    if not lines:
        return None
    across = [Limit(limit, f"limit {limit:g}") for limit in sorted(set(limits))]
    values = np.concatenate([*(line.y for line in lines), np.array([each.y for each in across])])
    if curve.log:
        y = logarithmic(values)
    elif curve.share:
        y = linear(values, low=0.0, percent=True)
    else:
        y = linear(values)
    x = linear(np.concatenate([line.x for line in lines]), whole=True)
    return Panel(curve.what, x, y, [*marks, *across], "training step", legend=legend)


def _logged(
    curve: Curve, label: str, log: pd.DataFrame, style: Style, chosen: int | None, *, faint: bool
) -> list[Mark]:
    """One run's curve, its chosen step ringed where it shows validation; nothing where the run didn't log it. faint:
    whether single steps are drawn behind their moving mean."""
    if curve.column not in log:
        return []
    logged = log[["step", curve.column]].to_numpy(dtype=float)
    logged = logged[~np.isnan(logged).any(axis=1)]
    if curve.log:
        logged = logged[logged[:, 1] > 0]
    if not len(logged):
        return []
    (x, y), few = logged.T, len(logged) <= FEW_POINTS
    marks: list[Mark] = []
    if curve.smooth and not few:
        marks += [Line(x, y, label, style, faint=True)] if faint else []
        y = pd.Series(y).rolling(SMOOTHING, center=True, min_periods=1).mean().to_numpy()
    marks.append(Line(x, y, label, style, marks=few))
    if chosen is not None and curve.column == "validation":
        at = x == chosen
        marks += [Dots(x[at], y[at], "", style, size=5.0, ring=True)]
    return marks


# --- evaluations ---


def pass_at_k(
    table: Sequence[TableRow], *, estimator: str = "unbiased", interval: str = "problems", legend: bool = False
) -> Panel | None:
    """Pass@k over k, of few systems with a 95 % interval; None without values.

    table: rows of one model and benchmark of a table's file (every label, its Pass@k rows); values as shares.
    """
    drawn = [row for row in table if row["estimator"] in ("mean", estimator) and not np.isnan(row["value"])]
    if not drawn:
        return None
    looks, marks = styles(row["label"] for row in drawn), list[Mark]()
    ends = []
    for label, look in looks.items():
        part = sorted((row for row in drawn if row["label"] == label), key=lambda row: row["k"])
        k, value, low, high = columns(part, "k", "value", f"{interval}_low", f"{interval}_high")
        banded = len(looks) <= BANDED
        marks += [Band(k, 100 * low, 100 * high, look)] if banded else []
        marks.append(Line(k, 100 * value, label, look, marks=True))
        ends += [100 * low, 100 * high] if banded else [100 * value]
    y = linear(np.concatenate(ends))
    y = linear(np.concatenate(ends), high=min(y.high, 101.5))
    ks = sorted({int(row["k"]) for row in drawn})
    return Panel(f"Pass@k, {estimator} (%)", doublings(ks), y, marks, "k", TALL, legend=legend)


def columns(table: Sequence[TableRow], *names: str) -> np.ndarray:
    """Columns of numbers (len(names), N)."""
    return np.array([[row[name] for row in table] for name in names], dtype=float)


def metric_title(row: TableRow) -> str:
    """A table row's metric, with its estimator where there are two."""
    return row["metric"] if row["estimator"] == "mean" else f"{row['metric']}, {row['estimator']}"


def forest(table: Sequence[TableRow]) -> Panel | None:
    """One metric's values with both intervals, a row a system; None without values.

    table: rows of one model, benchmark, metric and estimator; values as shares. Thick: other samples of the same
    problems; thin: other problems too.
    """
    drawn = [row for row in table if not np.isnan(row["value"])]
    if not drawn:
        return None
    looks, marks = styles(row["label"] for row in drawn), list[Mark]()
    labels = list(looks)
    for row in drawn:
        at, style = float(labels.index(row["label"])), looks[row["label"]]
        marks.append(Bar(100 * row["problems_low"], 100 * row["problems_high"], at, style))
        marks.append(Bar(100 * row["sampling_low"], 100 * row["sampling_high"], at, style, thick=True))
        marks.append(Dots(np.array([100 * row["value"]]), np.array([at]), row["label"], style, size=3.0))
    ends = np.concatenate([[mark.low, mark.high] for mark in marks if isinstance(mark, Bar)])
    title = f"{metric_title(drawn[0])} (%)"
    return Panel(title, linear(ends), rows(labels), marks, "", 0.75 + 0.3 * len(labels), upright=True)
