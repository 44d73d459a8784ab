"""Names as a reader of the page sees them, and as files and anchors of the page carry them."""

from ngrpo.study.expand import Study
from ngrpo.study.titles import title_of


def place_title(study: Study, model: str, benchmark: str) -> str:
    """A model on a benchmark, as titles of figures name it."""
    return f"{title_of(study, 'model', model)}, {title_of(study, 'benchmark', benchmark)}"


def slug(*parts: str) -> str:
    """An id for anchors and files: lower case, dots and underscores as dashes."""
    return "-".join(parts).lower().replace(".", "-").replace("_", "-").replace("@", "-")


def marked(label: str, learned_nothing: str) -> str:
    """A system's label where it is shown, marked where its run learned nothing."""
    return f"{label} (learned nothing)" if learned_nothing else label
