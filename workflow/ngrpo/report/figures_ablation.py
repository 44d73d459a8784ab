"""Figures of ablations: metrics over ρ (the paper's Figure 3), and two evaluations problem by problem."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ngrpo.report.drawing import add_legend, draw_line, drawn, new_axes, set_title, styles
from ngrpo.report.figures import metric_title

_RHO = re.compile(r"ρ = (\d*\.?\d+)")


def over_rho(frame: pd.DataFrame, *, interval: str = "problems") -> Figure | None:
    """Headline metrics over ρ with 95 % intervals, one line a metric (paper Figure 3); None without such rows.

    frame: rows of one model and benchmark of a table whose labels say ρ ("ρ = 0.15"); values as shares.
    """
    rows = frame[frame["against"].isna() & frame["headline"] & (frame["estimator"] != "bootstrap")]
    rows = rows.assign(rho=[float(m[1]) if (m := _RHO.search(label)) else np.nan for label in rows["label"]])
    rows = rows.dropna(subset=["rho", "value"])
    if rows.empty:
        return None
    rows = rows.assign(title=[metric_title(row) for _, row in rows.iterrows()])
    figure, axes = new_axes(height=2.7)
    looks = styles(rows["title"])
    for title, part in rows.groupby("title", sort=False):
        part, style = part.sort_values("rho"), looks[title]
        low, high = part[f"{interval}_low"] * 100, part[f"{interval}_high"] * 100
        axes.fill_between(part["rho"], low, high, color=style.color, alpha=0.14, linewidth=0)
        draw_line(axes, part["rho"], part["value"] * 100, title, style, marks=True)
    axes.set_xticks(sorted(rows["rho"].unique()))
    axes.set_xlabel("ρ")
    set_title(axes, "Values over ρ (%)")
    add_legend(axes)
    return figure


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


def by_problem(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> Figure | None:
    """Each problem's share of correct samples in two evaluations, sorted by the first; None where no problem is common.

    first, second: tables of grades (problem_id, grade). Points above the line are problems that the second solves more
    often.
    """
    both = _solved_shares(first, second).sort_values(["first", "second"])
    if both.empty:
        return None
    figure, axes = new_axes(height=2.7)
    looks = styles(names)
    place = pd.Series(np.arange(1, len(both) + 1), dtype=float)
    draw_line(axes, place, both["first"].reset_index(drop=True) * 100, names[0], looks[names[0]], marks=False)
    style = looks[names[1]]
    axes.plot(
        place, both["second"] * 100, linestyle="", marker="o", markersize=3, color=style.color, label=drawn(names[1])
    )
    axes.set_xlabel(f"problems, by {drawn(names[0])}")
    set_title(axes, "Correct samples of each problem (%)")
    add_legend(axes)
    return figure
