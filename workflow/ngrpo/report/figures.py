"""Figures of training and of evaluations: training curves, Pass@k over k, values with both intervals."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from ngrpo.report.curves import Curve
from ngrpo.report.drawing import THEME, Style, add_legend, draw_line, drawn, new_axes, set_title, styles

SMOOTHING = 9
"""Steps of the moving mean in training curves."""
FEW_POINTS = 15
"""Up to so many points a curve is drawn as it is, with markers."""


# --- training curves ---


def training_curve(
    curve: Curve,
    logs: Mapping[str, pd.DataFrame],
    *,
    looks: Mapping[str, Style] | None = None,
    limits: Iterable[float] = (),
    chosen: Mapping[str, int] | None = None,
    legend: bool = False,
) -> Figure | None:
    """One curve of all runs over steps; None where no run logged it.

    logs: label → one row a step with columns `step` and curve.column. looks: label → style. limits: horizontal lines
    (parity). chosen: label → the step whose checkpoint was exported, ringed.
    """
    figure, axes = new_axes()
    looks = looks or styles(logs)
    drawn = [_draw_log(axes, curve, label, log, looks[label], (chosen or {}).get(label)) for label, log in logs.items()]
    if not any(drawn):
        return None
    if curve.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    for limit in sorted(set(limits)):
        _draw_limit(axes, limit, log=curve.log)
    if curve.share:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if axes.get_ylim()[1] > 0.05 else 1))
    axes.set_xlabel("training step")
    set_title(axes, curve.what)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if legend:
        add_legend(axes)
    return figure


def _draw_log(axes: Axes, curve: Curve, label: str, log: pd.DataFrame, style: Style, chosen: int | None) -> bool:
    """One run's curve, its chosen step ringed where it shows validation; False where the run didn't log it."""
    if curve.column not in log:
        return False
    rows = log[["step", curve.column]].dropna()
    if curve.log:
        rows = rows[rows[curve.column] > 0]
    if rows.empty:
        return False
    few = len(rows) <= FEW_POINTS
    x, y = rows["step"], rows[curve.column]
    if curve.smooth and not few:
        axes.plot(x, y, color=style.color, linewidth=0.7, alpha=0.35)
        y = y.rolling(SMOOTHING, center=True, min_periods=1).mean()
    draw_line(axes, x, y, label, style, marks=few)
    if chosen is not None and curve.column == "validation":
        at = rows[rows["step"] == chosen]
        ring: dict[str, Any] = {
            "markersize": 10,
            "markerfacecolor": "none",
            "markeredgecolor": style.color,
            "markeredgewidth": 1.4,
        }
        axes.plot(at["step"], at[curve.column], "o", **ring)
    return True


def _draw_limit(axes: Axes, limit: float, *, log: bool) -> None:
    """A dashed line that a run must stay below, with its value."""
    color = THEME["alert"][0]
    axes.axhline(limit, color=color, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.annotate(
        f"limit {limit:g}",
        (1, limit),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=color,
    )
    axes.set_ylim(top=max(axes.get_ylim()[1], limit * (5 if log else 1.1)))


# --- evaluations ---


def pass_at_k(
    frame: pd.DataFrame, *, estimator: str = "unbiased", interval: str = "problems", legend: bool = False
) -> Figure | None:
    """Pass@k over k with a 95 % interval; None without values.

    frame: rows of one model and benchmark of a table's file (every label, its Pass@k rows); values as shares.
    """
    figure, axes = new_axes(height=2.7)
    rows = frame[frame["estimator"].isin(["mean", estimator])].dropna(subset="value")
    if rows.empty:
        return None
    looks = styles(frame["label"])
    for label, part in rows.groupby("label", sort=False):
        style, part = looks[label], part.sort_values("k")
        axes.fill_between(
            part["k"].astype(float),
            part[f"{interval}_low"] * 100,
            part[f"{interval}_high"] * 100,
            color=style.color,
            alpha=0.14,
            linewidth=0,
        )
        draw_line(axes, part["k"].astype(float), part["value"] * 100, label, style, marks=True)
    ks = sorted(rows["k"].astype(int).unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k")
    set_title(axes, f"Pass@k, {estimator} (%)")
    axes.set_ylim(top=min(axes.get_ylim()[1], 101.5))
    if legend:
        add_legend(axes)
    return figure


def metric_title(row: pd.Series) -> str:
    """A table row's metric, with its estimator where there are two."""
    return row["metric"] if row["estimator"] == "mean" else f"{row['metric']}, {row['estimator']}"


def forest(frame: pd.DataFrame) -> Figure | None:
    """One metric's values with both intervals, a row a system; None without values.

    frame: rows of one model, benchmark, metric and estimator; values as shares. Thick: other samples of the same
    problems; thin: other problems too.
    """
    rows = frame.dropna(subset="value")
    if rows.empty:
        return None
    looks = styles(frame["label"])
    labels = list(looks)
    figure, axes = new_axes(height=0.95 + 0.34 * len(labels))
    for _, row in rows.iterrows():
        y, style = labels.index(row["label"]), looks[row["label"]]
        axes.plot([row["problems_low"] * 100, row["problems_high"] * 100], [y, y], color=style.color, linewidth=1.3)
        bar: dict[str, Any] = {"color": style.color, "linewidth": 5, "alpha": 0.45, "solid_capstyle": "butt"}
        axes.plot([row["sampling_low"] * 100, row["sampling_high"] * 100], [y, y], **bar)
        axes.plot(row["value"] * 100, y, style.marker, color=style.color, markersize=6, markeredgewidth=0)
    axes.set_yticks(range(len(labels)), [drawn(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", visible=True)
    axes.grid(axis="y", visible=False)
    set_title(axes, f"{metric_title(rows.iloc[0])} (%)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure
