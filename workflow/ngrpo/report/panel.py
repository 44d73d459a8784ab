"""A panel: lines, bands, intervals and points on two axes, written as SVG without a drawing library.

A page at the paper's scale has hundreds of such panels. matplotlib takes 0.3 s to lay out and write one, this a
millisecond, and its SVG is a third as long. What needs more (points with names that must keep apart) is matplotlib's
(ngrpo.report.drawing). Colors are CSS variables with the light color as fallback, so that a panel follows its page's
theme; labels stay text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ngrpo.report.axes import Axis
from ngrpo.report.drawing import FONT, HEIGHT, WIDTH, XMLNS, Style, colored, described, escaped
from ngrpo.terminal import printable

TITLE, TICK, LABEL = 9.5, 8.5, 9.0
"""Sizes of type, in points."""
LETTER, WIDE = 0.61, 0.8
"""Width of a letter, and of a capital or %, by its size: of the widest common sans serif."""
LONGEST_NAME = 24
"""Letters of a row's name that are drawn; the rest is in the description and the table."""
LINE = 13.0
"""Height of a line of the legend."""
MARK = 2.3
"""Half the size of a marker."""
MOST_POINTS = 90
"""A curve of more points than this is drawn by the mean of neighbors: a panel is not wider."""
SHAPES = {
    "s": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "D": ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    "^": ((0, -1.3), (1.3, 1.1), (-1.3, 1.1)),
    "v": ((0, 1.3), (1.3, -1.1), (-1.3, -1.1)),
    "P": tuple((a * x, a * y) for a in (1.3,) for x, y in ((-.35, -1), (.35, -1), (.35, -.35), (1, -.35), (1, .35),
         (.35, .35), (.35, 1), (-.35, 1), (-.35, .35), (-1, .35), (-1, -.35), (-.35, -.35))),
    "X": tuple((x, y) for x, y in ((-1.3, -.8), (-.8, -1.3), (0, -.5), (.8, -1.3), (1.3, -.8), (.5, 0), (1.3, .8),
         (.8, 1.3), (0, .5), (-.8, 1.3), (-1.3, .8), (-.5, 0))),
}  # fmt: skip
"""Markers' corners, of half size 1; a circle has none."""


@dataclass(frozen=True)
class Line:
    """Values (N,) over x (N,), with a system's color, dashes and, `marks`, markers."""

    x: np.ndarray
    y: np.ndarray
    label: str
    style: Style
    marks: bool = False
    faint: bool = False
    steps: bool = False
    """Whether y stays until the next x."""


@dataclass(frozen=True)
class Band:
    """From low (N,) to high (N,) over x (N,)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: Style


@dataclass(frozen=True)
class Bar:
    """An interval of x in a row."""

    low: float
    high: float
    row: float
    style: Style
    thick: bool = False


@dataclass(frozen=True)
class Dots:
    """Points (N,) at x (N,), without a line; size: half a marker's. A ring isn't filled."""

    x: np.ndarray
    y: np.ndarray
    label: str
    style: Style
    size: float = MARK
    ring: bool = False


@dataclass(frozen=True)
class Limit:
    """A dashed line across, with its text."""

    y: float
    text: str


Mark = Line | Band | Bar | Dots | Limit


@dataclass
class Panel:
    """A panel's axes and what is drawn on them, in order. title: above it; x_label: below the axis; height: in inches.

    legend: whether the systems' names stand below it; else its page or file has them.
    """

    title: str
    x: Axis
    y: Axis
    marks: list[Mark] = field(default_factory=list)
    x_label: str = ""
    height: float = HEIGHT
    upright: bool = False
    """Whether grid lines are those of x."""
    legend: bool = False

    @property
    def keys(self) -> list[tuple[str, Style]]:
        """What a legend names."""
        named = {m.label: m.style for m in self.marks if isinstance(m, Line | Dots) and m.label}
        return list(named.items())

    def lines(self) -> list[Line]:
        """The lines, but for faint ones."""
        return [m for m in self.marks if isinstance(m, Line) and not m.faint]

    def svg(self, name: str, title: str, description: str) -> str:
        """The panel as inline SVG. name: an id, unique in the page. Same panel, same bytes."""
        below, _ = self._legend()
        width, height = 72 * WIDTH, 72 * self.height
        inside = "".join(self._parts(width, height))
        key = f'<g transform="translate(0 {_n(height)})">{below}</g>' if below else ""
        return described(inside + key, self.size, name, title, description)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in points."""
        return round(72 * WIDTH, 1), round(72 * self.height + LINE * self._legend()[1], 1)

    def _legend(self) -> tuple[str, int]:
        return legend(self.keys if self.legend else [], 72 * WIDTH)

    def _repr_svg_(self) -> str:
        """As a notebook shows it."""
        return self.svg("panel", self.title, "")

    def _parts(self, width: float, height: float) -> Iterable[str]:
        names = [(value, _shortened(text)) for value, text in self.y.ticks]
        left = max((_width(text, TICK) for _, text in names), default=0.0) + 7
        box = _Box(left, 24.0, width - 9, height - (31 if self.x_label else 17), self.x, self.y)
        yield _text(0, 11, self.title[:1].upper() + self.title[1:], TITLE, bold=True)
        yield from self._frame(box, names)
        yield from (part for mark in self.marks for part in box.drawn(mark))

    def _frame(self, box: "_Box", names: list[tuple[float, str]]) -> Iterable[str]:
        """Grid, the axis below, ticks and the axis's label."""
        grid = [f"M{_n(x)} {_n(box.top)}V{_n(box.bottom)}" for x in box.xs([v for v, _ in self.x.ticks])]
        if not self.upright:
            grid = [f"M{_n(box.left)} {_n(y)}H{_n(box.right)}" for y in box.ys([v for v, _ in self.y.ticks])]
        yield f'<path d="{"".join(grid)}" fill="none" stroke="{colored("grid")}" stroke-width=".8"/>'
        yield (
            f'<path d="M{_n(box.left)} {_n(box.bottom)}H{_n(box.right)}" stroke="{colored("muted")}"'
            f' stroke-width=".8"/><g font-size="{TICK}" fill="{colored("ink")}">'
        )
        places = box.ys([v for v, _ in names])
        yield '<g text-anchor="end">'
        yield from (
            f'<text x="{_n(box.left - 5)}" y="{_n(y + 3)}">{escaped(text)}</text>'
            for y, (_, text) in zip(places, names, strict=True)
        )
        yield '</g><g text-anchor="middle">'
        end = -np.inf
        for x, (_, text) in zip(box.xs([v for v, _ in self.x.ticks]), self.x.ticks, strict=True):
            half = _width(text, TICK) / 2
            if x - half > end + 3:  # a text that would touch the last one is left out
                yield f'<text x="{_n(x)}" y="{_n(box.bottom + 12)}">{escaped(text)}</text>'
                end = x + half
        if self.x_label:
            middle = (box.left + box.right) / 2
            label = escaped(self.x_label)
            yield f'<text x="{_n(middle)}" y="{_n(box.bottom + 26)}">{label}</text>'
        yield "</g></g>"


@dataclass(frozen=True)
class _Box:
    """Where the axes lie, in points."""

    left: float
    top: float
    right: float
    bottom: float
    x: Axis
    y: Axis

    def xs(self, values: Iterable[float] | np.ndarray) -> np.ndarray:
        return self.left + self.x.at(np.asarray(values, dtype=float)) * (self.right - self.left)

    def ys(self, values: Iterable[float] | np.ndarray) -> np.ndarray:
        return self.bottom - self.y.at(np.asarray(values, dtype=float)) * (self.bottom - self.top)

    def drawn(self, mark: Mark) -> Iterable[str]:
        """A mark's elements."""
        if isinstance(mark, Line):
            yield from self._line(mark)
        elif isinstance(mark, Band):
            xs = self.xs(mark.x)
            around = _path(np.append(xs, xs[::-1]), np.append(self.ys(mark.high), self.ys(mark.low)[::-1]))
            yield f'<path d="{around}z" fill="{colored(mark.style.variable)}" fill-opacity=".14"/>'
        elif isinstance(mark, Bar):
            (low, high), [y] = self.xs([mark.low, mark.high]), self.ys([mark.row])
            look = 'stroke-width="5" stroke-opacity=".45"' if mark.thick else 'stroke-width="1.3"'
            yield f'<path d="M{_n(low)} {_n(y)}H{_n(high)}" stroke="{colored(mark.style.variable)}" {look}/>'
        elif isinstance(mark, Dots):
            yield _dots(self.xs(mark.x), self.ys(mark.y), mark.style, mark.size, ring=mark.ring)
        else:
            [y], color = self.ys([mark.y]), colored("alert")
            yield (
                f'<path d="M{_n(self.left)} {_n(y)}H{_n(self.right)}" stroke="{color}" stroke-width="1.2"'
                f' stroke-dasharray="6 3.6"/><text x="{_n(self.right)}" y="{_n(y - 3)}" text-anchor="end"'
                f' font-size="{TICK}" fill="{color}">{escaped(mark.text)}</text>'
            )

    def _line(self, line: Line) -> Iterable[str]:
        x, y = _thinned(line.x, line.y)
        xs, ys = self.xs(x), self.ys(y)
        color = colored(line.style.variable)
        look = 'stroke-width=".7" stroke-opacity=".35"' if line.faint else 'stroke-width="1.8"'
        if line.style.dash and not line.faint:
            look += f' stroke-dasharray="{" ".join(_n(1.8 * part) for part in line.style.dash)}"'
        yield f'<path d="{_path(xs, ys, steps=line.steps)}" fill="none" stroke="{color}" {look}/>'
        if line.marks:
            yield _dots(xs, ys, line.style, MARK)


def legend(keys: list[tuple[str, Style]], width: float) -> tuple[str, int]:
    """Systems' names with their lines and markers, as SVG from y = 0 down, and how many lines of LINE they take."""
    parts, x, line = [], 0.0, 0
    for label, style in keys:
        text = printable(label)
        needed = 34 + _width(text, TICK)
        if x and x + needed > width:
            x, line = 0.0, line + 1
        y, dash = (
            LINE * line + 6,
            f' stroke-dasharray="{" ".join(_n(1.8 * d) for d in style.dash)}"' if style.dash else "",
        )
        parts.append(
            f'<path d="M{_n(x)} {_n(y)}h26" stroke="{colored(style.variable)}" stroke-width="1.8"{dash}/>'
            f"{_dots(np.array([x + 13]), np.array([y]), style, MARK)}{_text(x + 31, y + 3, text, TICK)}"
        )
        x += needed + 8
    return "".join(parts), line + 1 if keys else 0


def alone(drawing: str, keys: list[tuple[str, Style]], title: str, size: tuple[float, float]) -> str:
    """A drawing as a file of its own: on white, below its title, above a legend of `keys`; in plain colors, which every
    program knows. size: width and height of the drawing, in points."""
    below, lines = legend(keys, size[0])
    height = size[1] + 16 + LINE * lines
    whole = (
        f'<svg{XMLNS} width="{_n(size[0])}"'
        f' height="{_n(height)}" viewBox="0 0 {_n(size[0])} {_n(height)}" style="font-family: {FONT}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{_text(3, 10, title, 7.5, "muted")}'
        f'<svg y="16" width="{_n(size[0])}" height="{_n(size[1])}">{drawing}</svg>'
        f'<g transform="translate(3 {_n(size[1] + 16)})">{below}</g></svg>\n'
    )
    return re.sub(r"var\(--[\w-]+, ([^()]+)\)", r"\1", whole)


def _text(x: float, y: float, text: str, size: float, variable: str = "ink", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size:g}" fill="{colored(variable)}"{weight}>{escaped(text)}</text>'
    )


def _dots(xs: np.ndarray, ys: np.ndarray, style: Style, size: float, *, ring: bool = False) -> str:
    """Markers as one path."""
    corners = SHAPES.get("o" if ring else style.marker)
    if corners is None:
        round_one = f"a{_n(size)} {_n(size)} 0 1 0 .01 0z"
        path = "".join(f"M{_n(x)} {_n(y - size)}{round_one}" for x, y in zip(xs, ys, strict=True))
    else:
        path = "".join(
            f"M{'L'.join(f'{_n(x + size * a)} {_n(y + size * b)}' for a, b in corners)}z"
            for x, y in zip(xs, ys, strict=True)
        )
    color = colored(style.variable)
    look = f'fill="none" stroke="{color}" stroke-width="1.4"' if ring else f'fill="{color}"'
    return f'<path d="{path}" {look}/>'


def _path(xs: np.ndarray, ys: np.ndarray, *, steps: bool = False) -> str:
    """A line through points; with steps, across before up."""
    if steps:
        later = "".join(f"H{_n(x)}V{_n(y)}" for x, y in zip(xs[1:], ys[1:], strict=True))
        return f"M{_n(xs[0])} {_n(ys[0])}{later}"
    places = np.round(np.column_stack([xs, ys]), 1)
    moves = np.diff(places, axis=0).ravel()  # each from the last rounded place, so that nothing adds up
    start = f"M{_n(places[0, 0])} {_n(places[0, 1])}"
    return start + ("l" + " ".join(map(_n, moves)).replace(" -", "-") if len(moves) else "")


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points: means of so many neighbors as that takes."""
    by = -(-len(x) // MOST_POINTS)
    if by <= 1:
        return x, y
    starts = np.arange(0, len(x), by)
    sizes = np.diff([*starts, len(x)])
    return np.add.reduceat(x.astype(float), starts) / sizes, np.add.reduceat(y.astype(float), starts) / sizes


def _shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _width(text: str, size: float) -> float:
    wide = sum(letter == "%" or letter.isupper() for letter in text)
    return size * (WIDE * wide + LETTER * (len(text) - wide))


def _n(value: float) -> str:
    """A coordinate to a tenth of a point, as short as it can be."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
