"""The report's page without its drawings, which take nearly all of its time: for tests that read its words."""

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ngrpo.report.gallery import Gallery
from ngrpo.report.page import page
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results


class Undrawn(Gallery):
    """Figures by their links and by what a legend would name."""

    def draw(self, figure: Figure, name: str, title: str, description: str) -> Markup:
        """An empty figure in place of this one; nothing is kept."""
        named = [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]
        drawn = super().draw(Figure(figsize=(1, 1)), name, title, description)
        self._drawn.clear()
        return drawn + Markup("").join(Markup("<p>{}</p>").format(escape(label)) for label in named)


def undrawn_page(study: Study, results: Results) -> str:
    """The page's HTML, of which nothing is written."""
    return page(study, results, results.report.folder, gallery=Undrawn())
