"""The page's figures as files of their own: SVG, each with what a lone figure needs, its title and legend."""

import re
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from ngrpo.files import whole_folder
from ngrpo.report.drawing import FONT, XMLNS, escaped, size_of, svg
from ngrpo.report.panel import Panel, alone
from ngrpo.study.layout import ReportFiles


class Gallery:
    """Draws figures for the page and keeps them, to be written beside it."""

    def __init__(self) -> None:
        self._alone: dict[str, str] = {}

    def draw(self, figure: Panel | Figure, name: str, title: str, description: str) -> Markup:
        """A figure as inline SVG with a link to its file. name: unique in the page; a second one raises ValueError."""
        if name in self._alone:
            raise ValueError(f"two figures are called {name}")
        panel = isinstance(figure, Panel)
        drawn = figure.svg(name, title, description) if panel else svg(figure, name, title, description)
        named = figure.keys if panel and not figure.legend else []
        keys = named if len(named) > 1 else []
        self._alone[name] = alone(drawn, keys, title, figure.size if panel else size_of(figure))
        folder = ReportFiles(Path()).figures.as_posix()  # as a page beside it names it
        link = f'<a href="{folder}/{name}.svg">SVG</a>'
        inline = drawn.replace(XMLNS, "", 1).replace(f' style="font-family: {FONT}"', "", 1)
        inline = re.sub(r"var\((--[\w-]+), #[0-9a-f]{6}\)", r"var(\1)", inline)  # the page has namespace, font, colors
        return Markup(f'{inline}<p class="files" aria-label="File of the figure: {escaped(title)}">{link}</p>')

    def write(self, report: ReportFiles) -> None:
        """Write all figures into the report's folder of figures, in place of those that are there."""
        with whole_folder(report.figures) as part:
            for name, drawn in self._alone.items():
                (part / f"{name}.svg").write_text(drawn, encoding="utf-8")
