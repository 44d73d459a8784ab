"""What models, benchmarks and methods are called where people read of them."""

from collections.abc import Mapping
from typing import Any

from ngrpo.study.expand import Study
from ngrpo.study.paper_values import AVERAGE
from ngrpo.terminal import printable


def title_of(study: Study, kind: str, name: str) -> str:
    """A title, or the id where there is none. kind: "model", "benchmark" or "method"; name: its id, or the average."""
    if name == AVERAGE:
        return "average of the benchmarks"
    named: dict[str, Mapping[str, Any]]
    named = {"model": study.size.models, "benchmark": study.size.datasets, "method": study.study.methods}
    return printable(named[kind][name].title or name)
