"""Names as a reader of the page sees them, and as files and anchors of the page carry them."""

from ngrpo.study.expand import Study
from ngrpo.study.paper_values import AVERAGE
from ngrpo.terminal import printable


def title_of(study: Study, kind: str, name: str) -> str:
    """How the page names a model or benchmark. kind: "model" or "benchmark"; name: its id, or the average."""
    if name == AVERAGE:
        return "average of the benchmarks"
    source = study.size.datasets[name] if kind == "benchmark" else study.size.models[name]
    return printable(source.title or name)


def place_title(study: Study, model: str, benchmark: str) -> str:
    """A model on a benchmark, as titles of figures name it."""
    return f"{title_of(study, 'model', model)}, {title_of(study, 'benchmark', benchmark)}"


def slug(*parts: str) -> str:
    """An id for anchors and files: lower case, dots and underscores as dashes."""
    return "-".join(parts).lower().replace(".", "-").replace("_", "-").replace("@", "-")


def marked(label: str, learned_nothing: str) -> str:
    """A system's label where it is shown, marked where its run learned nothing."""
    return f"{label} (learned nothing)" if learned_nothing else label
