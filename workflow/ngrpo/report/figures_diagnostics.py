"""Figures of what mixing feeds: tokens, mixtures and Gaussian noise on two axes (the paper's Figure 1), and cosines."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ngrpo.formatting import percent
from ngrpo.report.diagnostics import shown
from ngrpo.report.drawing import THEME, add_legend, drawn, new_axes, set_title

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
    for i, point in enumerate(own):  # of two that lie close, the upper one is named above and the other below
        apart = np.where(np.arange(len(own)) == i, np.inf, np.hypot(*(own - point).T))
        offset = (5, 5) if point[1] >= own[apart.argmin(), 1] else (5, -11)
        name = drawn(shown(data["tokens"][i]["token"]))
        axes.annotate(name, point, offset, textcoords="offset points", fontsize=8, color=THEME["ink"][0])
    first, second = (f"{percent(share, 0)} %" for share in data["explained"])
    axes.set_xlabel(f"first main axis ({first} of the variance)")
    axes.set_ylabel(f"second ({second})")
    axes.grid(axis="x", visible=True)
    set_title(axes, "What is fed, around ten tokens" if len(own) == 10 else f"What is fed, around {len(own)} tokens")
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3}
    tight: dict[str, Any] = {"frameon": False, "fontsize": 8, "handletextpad": 0.2, "columnspacing": 0.9}
    legend = axes.legend(**tight, labelcolor=THEME["ink"][0], **place)
    for handle in legend.legend_handles:
        handle.set_sizes([24])
    return figure


def cosines_to_anchor(data: dict[str, Any]) -> Figure:
    """The share of fed vectors whose cosine to their anchor is at most c, over c: mixing and Gaussian noise."""
    figure, axes = new_axes(height=2.7)
    dashes: dict[str, Any] = {"noise": (0, (1, 1.1)), "mixtures": "-"}
    for key, label, variable, _ in KINDS:
        kind = "mixture_cosines" if key == "mixtures" else "noise_cosines"
        values = np.sort([c for token in data["tokens"] for c in token[kind]])
        share = np.arange(1, len(values) + 1) / len(values)
        axes.step(values, share * 100, where="post", color=THEME[variable][0], linestyle=dashes[key], label=label)
    axes.set_xlabel("cosine to the anchor's embedding")
    set_title(axes, "Fed vectors at or below a cosine (%)")
    add_legend(axes, loc="center left", bbox_to_anchor=(0.42, 0.5))
    return figure
