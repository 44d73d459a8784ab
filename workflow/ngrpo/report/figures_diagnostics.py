"""Figures of what mixing feeds: tokens, mixtures and Gaussian noise on two axes (the paper's Figure 1), and cosines."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngrpo.formatting import percent
from ngrpo.report.axes import linear
from ngrpo.report.diagnostics import shown
from ngrpo.report.drawing import THEME, Style, drawn, new_axes, set_title
from ngrpo.report.panel import Line, Panel

DRAWN = 3
"""Draws of noise that are shown around a token, of those that are measured."""
KINDS = (("noise", "Gaussian noise", "series-1", "."), ("mixtures", "neighbor mixing", "series-3", "D"))


def inputs_on_two_axes(data: dict[str, Any]) -> Figure:
    """Ten tokens' embeddings, where Gaussian noise sends them and what mixing fed there (paper Figure 1).

    data: what `ngrpo diagnostics` wrote; coordinates are in units of E on the two main axes of these embeddings.
    """
    figure, axes = new_axes(height=3.4)
    for key, label, variable, marker in KINDS:
        points = np.array([p for token in data["tokens"] for p in token[key]])
        look: dict[str, Any] = {"s": 14 if key == "mixtures" else 12, "color": THEME[variable][0], "linewidths": 0}
        axes.scatter(points[:, 0], points[:, 1], marker=marker, alpha=0.7, label=label, **look)
    own = np.array([token["at"] for token in data["tokens"]])
    ring: dict[str, Any] = {"facecolors": "none", "edgecolors": THEME["series-2"][0], "linewidths": 1.3}
    axes.scatter(own[:, 0], own[:, 1], marker="o", s=42, label="token", **ring)
    _name_points(axes, own, [token["token"] for token in data["tokens"]])
    _finish(axes, data, f"What is fed, around {'ten' if len(own) == 10 else len(own)} tokens")
    return figure


def _name_points(axes: Axes, own: np.ndarray, tokens: list[str]) -> None:
    """Tokens' names at their points (N, 2); of two that lie close, the upper one's above and the other's below."""
    for i, point in enumerate(own):
        apart = np.where(np.arange(len(own)) == i, np.inf, np.hypot(*(own - point).T))
        offset = (5, 5) if point[1] >= own[apart.argmin(), 1] else (5, -11)
        axes.annotate(
            drawn(shown(tokens[i])), point, offset, textcoords="offset points", fontsize=8, color=THEME["ink"][0]
        )


def _finish(axes: Axes, data: dict[str, Any], title: str) -> None:
    """Names of the two main axes, a title, and a legend below."""
    first, second = (f"{percent(share, 0)} %" for share in data["explained"])
    axes.set_xlabel(f"first main axis ({first} of the variance)")
    axes.set_ylabel(f"second ({second})")
    axes.grid(axis="x", visible=True)
    set_title(axes, title)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3}
    tight: dict[str, Any] = {"frameon": False, "fontsize": 8, "handletextpad": 0.2, "columnspacing": 0.9}
    legend = axes.legend(**tight, labelcolor=THEME["ink"][0], **place)
    for handle in legend.legend_handles:
        handle.set_sizes([24])


def nearest_after_noise(data: dict[str, Any]) -> Figure | None:
    """Ten tokens, Gaussian noise around each, and the vocabulary token nearest to it, joined by lines, as the paper's
    Figure 1 has them; None where that wasn't measured.

    A solid line leads from a token to a noisy vector, a dotted one from there to the token that is nearest to it in the
    whole space. DRAWN draws a token. data: what `ngrpo diagnostics` wrote.
    """
    if any("noise_nearest" not in token for token in data["tokens"]):
        return None
    figure, axes = new_axes(height=3.4)
    noise, flipped = (THEME[variable][0] for variable in ("series-1", "alert"))
    others: dict[str, tuple[float, float]] = {}
    for token in data["tokens"]:
        for (x, y), (name, *there) in zip(token["noise"][:DRAWN], token["noise_nearest"][:DRAWN], strict=True):
            another = name != token["token"]
            axes.plot([token["at"][0], x], [token["at"][1], y], color=noise, linewidth=0.7, zorder=1)
            axes.plot([x, there[0]], [y, there[1]], color=flipped if another else noise, linestyle=":", linewidth=0.9)
            others |= {name: (there[0], there[1])} if another else {}
    points = np.array([point for token in data["tokens"] for point in token["noise"][:DRAWN]])
    axes.scatter(points[:, 0], points[:, 1], marker=".", s=14, color=noise, linewidths=0, label="token + noise")
    own = np.array([token["at"] for token in data["tokens"]])
    axes.scatter(own[:, 0], own[:, 1], marker="o", s=34, color=THEME["series-2"][0], linewidths=0, label="token")
    if others:
        places = np.array(list(others.values()))
        axes.scatter(
            places[:, 0], places[:, 1], marker="x", s=24, color=flipped, linewidths=1.1, label="nearest, another"
        )
    _name_points(axes, own, [token["token"] for token in data["tokens"]])
    _finish(axes, data, "Nearest token after noise")
    return figure


def cosines_to_anchor(data: dict[str, Any]) -> Panel:
    """The share of fed vectors whose cosine to their anchor is at most c, over c: mixing and Gaussian noise."""
    dashes: dict[str, Any] = {"noise": (1, 1.1), "mixtures": ""}
    lines = []
    for key, label, variable, _ in KINDS:
        kind = "mixture_cosines" if key == "mixtures" else "noise_cosines"
        values = np.sort([c for token in data["tokens"] for c in token[kind]])
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        lines.append(Line(values, share, label, Style(variable, dashes[key], ""), steps=True))
    x, y = (linear(np.concatenate(ends)) for ends in ([line.x for line in lines], [line.y for line in lines]))
    title = "Fed vectors at or below a cosine (%)"
    return Panel(title, x, y, [*lines], "cosine to the anchor's embedding", 2.7, legend=True)
