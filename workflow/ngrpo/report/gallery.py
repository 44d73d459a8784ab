"""The page's figures as files of their own: SVG and PNG, each with what a lone figure needs, its title and legend."""

from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from ngrpo.files import whole_folder
from ngrpo.report.drawing import THEME, drawn, escaped, svg
from ngrpo.study.layout import ReportFiles

DPI = 200
LINE = 0.19  # inches of a line of the legend


class Gallery:
    """Draws figures for the page and keeps them, to be written beside it."""

    def __init__(self) -> None:
        self._drawn: dict[str, tuple[Figure, str, str]] = {}

    def draw(self, figure: Figure, name: str, title: str, description: str) -> Markup:
        """A figure as inline SVG with links to its files. name: unique in the page; a second one raises ValueError."""
        if name in self._drawn:
            raise ValueError(f"two figures are called {name}")
        self._drawn[name] = (figure, title, description)
        folder = ReportFiles(Path()).figures.as_posix()  # as a page beside it names it
        files = " · ".join(f'<a href="{folder}/{name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png"))
        links = f'<p class="files" aria-label="Files of the figure: {escaped(title)}">{files}</p>'
        return Markup(svg(figure, name, title, description) + links)

    def write(self, report: ReportFiles) -> None:
        """Write all figures into the report's folder of figures, in place of those that are there."""
        with whole_folder(report.figures) as part:
            for name, (figure, title, description) in self._drawn.items():
                _complete(figure, title)
                drawn = svg(figure, name, title, description)
                ground = drawn.replace("</desc>", '</desc><rect width="100%" height="100%" fill="#fff"/>', 1)
                (part / f"{name}.svg").write_text(ground + "\n", encoding="utf-8")
                figure.savefig(part / f"{name}.png", dpi=DPI, facecolor="white", metadata={"Software": None})


def _complete(figure: Figure, title: str) -> None:
    """Give a figure that leaves its page a title and, where several systems are in it, a legend."""
    figure.suptitle(drawn(title), x=0.01, ha="left", fontsize=7.5, color=THEME["muted"][0])
    figure.set_layout_engine("constrained")  # everything is placed anew
    [axes] = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    lines = (len(labels) + 1) // 2 if len(labels) > 1 and axes.get_legend() is None else 0
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LINE * (1 + lines))
    if lines:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=2.4)
