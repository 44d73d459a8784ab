"""How every figure looks, color-blind safe, in small deterministic SVG; and figures by seaborn and matplotlib.

A figure is one small panel, so that a page can lay panels out side by side or, on a phone, below each other. Lines,
bands and intervals are panels of our own (ngrpo.report.panel), of which a page has hundreds; points with names that
must keep apart are matplotlib's.
Colors are drawn once and written as CSS variables with the drawn color as fallback: inline in a page an SVG follows
its light or dark theme, and alone it looks the same everywhere. Labels stay text (searchable, small). Systems differ by
color, line and marker, so that a gray print still tells them apart.
"""

import html
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngrpo.terminal import printable

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


@dataclass(frozen=True)
class Style:
    """How one system is drawn everywhere: a variable of THEME, a dash pattern and a marker."""

    variable: str
    dash: tuple[float, ...] | str
    marker: str

    @property
    def color(self) -> str:
        """The color as drawn."""
        return THEME[self.variable][0]


XMLNS = ' xmlns="http://www.w3.org/2000/svg"'
XLINK = ' xmlns:xlink="http://www.w3.org/1999/xlink"'
FONT = "var(--sans, 'DejaVu Sans', sans-serif)"
for prefix, space in (("", "http://www.w3.org/2000/svg"), ("xlink", "http://www.w3.org/1999/xlink")):
    ElementTree.register_namespace(prefix, space)
WORD_JOINER = "\u2060"  # has no width


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every label, in the order in which they first come; the eighth repeats the first's color."""
    return {
        label: Style(f"series-{i % 7 + 1}", DASHES[i % 7], MARKERS[i % 7])
        for i, label in enumerate(dict.fromkeys(labels))
    }


def imported_styles(labels: Iterable[str]) -> dict[str, Style]:
    """A style for every curve that was imported: dashed and gray, so that no system of the study is taken for it."""
    dashes = ((6, 3), (2, 3), (9, 3, 2, 3), (12, 4))
    return {
        label: Style("muted", dashes[i % len(dashes)], MARKERS[-1 - i % len(MARKERS)])
        for i, label in enumerate(dict.fromkeys(labels))
    }


def colored(variable: str) -> str:
    """A variable of THEME as an SVG names it."""
    return f"var(--{variable}, {THEME[variable][0]})"


def new_axes(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty panel; height in inches."""
    ink, muted, grid = (THEME[v][0] for v in ("ink", "muted", "grid"))
    settings: dict[str, Any] = {
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


def drawn(text: object) -> str:
    """Foreign text as matplotlib draws it to the letter: no control characters, no $ begins a formula, and no _ at its
    start keeps it out of legends."""
    shown = printable(text).replace("$", r"\$")
    return f"{WORD_JOINER}{shown}" if shown.startswith("_") else shown


def set_title(axes: Axes, text: str) -> None:
    """A panel's title, its first letter a capital."""
    axes.set_title(drawn(f"{text[:1].upper()}{text[1:]}"), loc="left", fontsize=9.5, fontweight="bold", pad=9)


def add_legend(axes: Axes, **place: Any) -> None:
    """A legend inside the panel. place: as matplotlib's legend takes it."""
    axes.legend(frameon=False, fontsize=8.5, handlelength=2.4, labelcolor=THEME["ink"][0], **place)


def svg(figure: Figure, name: str, title: str, description: str) -> str:
    """A figure as inline SVG: a title and description for screen readers, ids unique by `name`, no date, no fonts.

    name: an id, unique in the page. Same figure, same bytes.
    """
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)  # else parts would be placed twice
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text)
    text = re.sub(r"'DejaVu Sans'(?:, [^;\"]*)?", FONT, text)
    for variable, (light, _) in THEME.items():
        text = re.sub(light, f"var(--{variable}, {light})", text, flags=re.IGNORECASE)
    text = slim(text, name)
    inside = re.sub(r"\n\s*", "\n", text[text.index(">") + 1 : text.rindex("</svg>")]).strip()
    inside = re.sub(r'style="[^"]*"', lambda style: style[0].replace(": ", ":").replace("; ", ";"), inside)
    return described(inside, size_of(figure), name, title, description)


def size_of(figure: Figure) -> tuple[float, float]:
    """Width and height, in points."""
    width, height = (float(round(72 * side)) for side in figure.get_size_inches())
    return width, height


def described(inside: str, size: tuple[float, float], name: str, title: str, description: str) -> str:
    """An SVG of a size in points, with a title and description for screen readers. name: its id, unique in the page."""
    width, height = (f"{side:g}" for side in size)
    return (
        f'<svg{XMLNS}{XLINK if "xlink:" in inside else ""} role="img"'
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' aria-labelledby="{name}-title {name}-about" style="font-family: {FONT}">'
        f'<title id="{name}-title">{escaped(title)}</title><desc id="{name}-about">{escaped(description)}</desc>'
        f"{inside}</svg>"
    )


def slim(text: str, name: str) -> str:
    """An SVG without what draws nothing: decimals of coordinates beyond a hundredth of a point, ids that nobody names,
    groups without attributes, invisible paths. Those ids that are named become `name`-0, `name`-1, …"""
    root = ElementTree.fromstring(text.replace(f" font-family: {FONT};", ""))
    ids = {old: f"{name}-{n}" for n, old in enumerate(dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text)))}
    for element in root.iter():
        slimmer = {key: _slim_value(key, value, ids) for key, value in element.attrib.items()}
        element.attrib = {key: value for key, value in slimmer.items() if value}
    _unwrap(root)
    return ElementTree.tostring(root, encoding="unicode")


def _slim_value(key: str, value: str, ids: dict[str, str]) -> str:
    """An attribute's value with ids by their new names; empty where the attribute says nothing."""
    if key == "id":
        return ids.get(value, "")
    if reference := re.fullmatch(r"(#|url\(#)(.+?)(\)?)", value):
        return f"{reference[1]}{ids[reference[2]]}{reference[3] or ''}"
    if key in ("d", "x", "y", "points", "transform"):
        value = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), value)
        value = re.sub(r"\s+", " ", value).strip()
    return "" if value.startswith("rotate(-0 ") else value


def _unwrap(parent: ElementTree.Element) -> None:
    """Put the content of groups without attributes in their place, and drop paths that are neither filled nor drawn."""
    for child in list(parent):
        _unwrap(child)
        kind, place = child.tag.rpartition("}")[2], list(parent).index(child)
        group = kind == "g" and not child.attrib
        invisible = kind == "path" and child.get("style") == "fill: none" and child.attrib.keys() == {"d", "style"}
        if group or invisible:
            parent[place : place + 1] = list(child)


def escaped(text: str) -> str:
    """Text for XML, in an element or an attribute: without the control characters that XML can't hold."""
    return html.escape(printable(text), quote=True)
