"""Every figure of the study, in one style: seaborn on matplotlib, color-blind safe, small deterministic SVG.

A figure is one small panel, so that a page can lay panels out side by side or, on a phone, below each other.
Colors are drawn once and written as CSS variables with the drawn color as fallback: inline in a page an SVG follows
its light or dark theme, and alone it looks the same everywhere. Labels stay text (searchable, small). Systems differ by
color, line and marker, so that a gray print still tells them apart.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

THEME = {
    "ink": ("#1d1f23", "#e8e6e1"),
    "muted": ("#5c616b", "#a9adb6"),
    "grid": ("#e3e2dd", "#32363e"),
    "alert": ("#b3261e", "#ff8a80"),
    "series-1": ("#6b6f76", "#b4b8c0"),
    "series-2": ("#0069a8", "#63b8ee"),
    "series-3": ("#c2500a", "#ff9a5c"),
    "series-4": ("#007a5a", "#4fcfa5"),
    "series-5": ("#9c3f86", "#e59ad2"),
    "series-6": ("#7a5c00", "#e0bd4a"),
    "series-7": ("#3d5a80", "#9bb8e8"),
}
"""CSS variable: (color on light, color on dark). Each reaches a contrast of 4.5 on its page (grid lines excepted).
The series follow Okabe and Ito's order of hues: neutral, blue, vermilion, green, purple, yellow, slate."""
DASHES = ((1, 1.1), "", (4, 1.6), (5, 1.4, 1, 1.4), (7, 2), (2, 2), (3, 1, 1, 1, 1, 1))
"""The baseline is solid and the next system dashed above it, so that curves that agree are both seen."""
MARKERS = ("s", "o", "D", "^", "v", "P", "X")
WIDTH, HEIGHT = 3.6, 2.45
SMOOTHING = 9
"""Steps of the moving mean in training curves."""


@dataclass(frozen=True)
class Style:
    """How one system is drawn everywhere: a variable of THEME, a dash pattern and a marker."""

    variable: str
    dash: tuple | str
    marker: str

    @property
    def color(self) -> str:
        """The color as drawn."""
        return THEME[self.variable][0]


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label, in the order in which they first come; the eighth repeats the first's color."""
    return {
        label: Style(f"series-{i % 7 + 1}", DASHES[i % 7], MARKERS[i % 7])
        for i, label in enumerate(dict.fromkeys(labels))
    }


def _axes(height: float = HEIGHT) -> tuple[Figure, Axes]:
    ink, muted, grid = (THEME[v][0] for v in ("ink", "muted", "grid"))
    settings = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.edgecolor": muted,
        "axes.labelcolor": ink,
        "axes.linewidth": 0.8,
        "text.color": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "lines.solid_capstyle": "round",
    }
    with sns.axes_style("whitegrid", settings), matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
    axes.grid(axis="x", visible=False)
    sns.despine(ax=axes, left=True)
    axes.tick_params(length=0)
    return figure, axes


def _line(axes: Axes, x: pd.Series, y: pd.Series, label: str, style: Style, *, marks: bool) -> None:
    marker = {"marker": style.marker, "markersize": 4.5, "markeredgewidth": 0} if marks else {}
    dash = (0, style.dash) if style.dash else "-"
    axes.plot(x, y, color=style.color, linewidth=1.8, linestyle=dash, label=label, **marker)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(f"{text[:1].upper()}{text[1:]}", loc="left", fontsize=9.5, fontweight="bold", pad=9)


def _legend(axes: Axes, **place: object) -> None:
    axes.legend(frameon=False, fontsize=8.5, handlelength=2.4, labelcolor=THEME["ink"][0], **place)


# --- training curves ---


@dataclass(frozen=True)
class Curve:
    """One training curve. column: of a run's log; what: the y axis's label; about: what a reader sees there."""

    column: str
    what: str
    about: str
    smooth: bool = True
    log: bool = False
    share: bool = False


CURVES = (
    Curve("reward", "mean reward", "Share of rollout answers that the grader accepts, a step."),
    Curve(
        "validation", "validation score", "Mean score on the validation problems; a ring marks the chosen step.", False
    ),
    Curve("response_length", "response tokens", "Mean length of a rollout's response."),
    Curve("truncated", "truncated responses", "Share of rollout responses that reached the token limit.", share=True),
    Curve("entropy", "entropy (nats)", "Mean entropy of the policy's next-token distribution."),
    Curve("kl", "KL to the base (nats)", "k3 estimate of the divergence from the base model, before its coefficient."),
    Curve(
        "parity_max",
        "largest |Δ log-prob|",
        "Largest difference between the rollout's and the replayed log-probs of a step; above the dashed limit the"
        " run stops.",
        False,
        log=True,
    ),
    Curve("throughput", "tokens a second", "Response tokens that rollout draws in a second on each device."),
    Curve("mixing_share", "share of mixed steps", "Share of rollout steps that fed back a mixture.", share=True),
    Curve("mixing_cosine", "cosine to the anchor", "Mean cosine between a mixture and its anchor's embedding."),
)


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
    figure, axes = _axes()
    drawn = False
    looks = looks or styles(logs)
    for label, log in logs.items():
        style = looks[label]
        if curve.column not in log:
            continue
        rows = log[["step", curve.column]].dropna()
        if curve.log:
            rows = rows[rows[curve.column] > 0]
        if rows.empty:
            continue
        drawn = True
        few = len(rows) <= 15
        x, y = rows["step"], rows[curve.column]
        if curve.smooth and not few:
            axes.plot(x, y, color=style.color, linewidth=0.7, alpha=0.35)
            y = y.rolling(SMOOTHING, center=True, min_periods=1).mean()
        _line(axes, x, y, label, style, marks=few)
        if chosen and label in chosen and curve.column == "validation":
            here = rows[rows["step"] == chosen[label]]
            axes.plot(
                here["step"],
                here[curve.column],
                "o",
                markersize=10,
                markerfacecolor="none",
                markeredgecolor=style.color,
                markeredgewidth=1.4,
            )
    if not drawn:
        return None
    if curve.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    for limit in sorted(set(limits)):
        axes.axhline(limit, color=THEME["alert"][0], linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(
            f"limit {limit:g}",
            (1, limit),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=THEME["alert"][0],
        )
        axes.set_ylim(top=max(axes.get_ylim()[1], limit * (5 if curve.log else 1.1)))
    if curve.share:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if axes.get_ylim()[1] > 0.05 else 1))
    axes.set_xlabel("training step")
    _title(axes, curve.what)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if legend:
        _legend(axes)
    return figure


# --- evaluations ---


def pass_at_k(
    frame: pd.DataFrame, *, estimator: str = "unbiased", interval: str = "problems", legend: bool = False
) -> Figure | None:
    """Pass@k over k with a 95 % interval; None without values.

    frame: rows of one model and benchmark of a table's file (every label, its Pass@k rows); values as shares.
    """
    figure, axes = _axes(height=2.7)
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
        _line(axes, part["k"].astype(float), part["value"] * 100, label, style, marks=True)
    ks = sorted(rows["k"].astype(int).unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("k")
    _title(axes, f"Pass@k, {estimator} (%)")
    axes.set_ylim(top=min(axes.get_ylim()[1], 101.5))
    if legend:
        _legend(axes)
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
    figure, axes = _axes(height=0.95 + 0.34 * len(labels))
    for _, row in rows.iterrows():
        y, style = labels.index(row["label"]), looks[row["label"]]
        axes.plot([row["problems_low"] * 100, row["problems_high"] * 100], [y, y], color=style.color, linewidth=1.3)
        bar = {"color": style.color, "linewidth": 5, "alpha": 0.45, "solid_capstyle": "butt"}
        axes.plot([row["sampling_low"] * 100, row["sampling_high"] * 100], [y, y], **bar)
        axes.plot(row["value"] * 100, y, style.marker, color=style.color, markersize=6, markeredgewidth=0)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", visible=True)
    axes.grid(axis="y", visible=False)
    _title(axes, f"{metric_title(rows.iloc[0])} (%)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return figure


# --- SVG ---


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """A figure as inline SVG: a title and description for screen readers, ids unique by `name`, no date, no fonts.

    name: an id, unique in the page. Same figure, same bytes.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", "var(--sans, 'DejaVu Sans', sans-serif)", text)
    for variable, (light, _) in THEME.items():
        text = re.sub(light, f"var(--{variable}, {light})", text, flags=re.IGNORECASE)
    width, height = (round(72 * side) for side in figure.get_size_inches())
    described = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escaped(title)}</title><desc id="{name}-about">{escaped(description)}</desc>'
    )
    text = re.sub(r"<svg[^>]*>", lambda _: described, text, count=1)
    return re.sub(r"\n\s*", "\n", text).strip()


def escaped(text: str) -> str:
    """Text for XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
