"""Text for a terminal: the one table that all commands print, and strings that can't control it.

Shown text comes from models, graders and configuration: control characters and text-direction marks are escaped.
"""

import math
import unicodedata
from collections.abc import Sequence

UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are escaped: controls, direction marks, surrogates, separators of lines and paragraphs."""
WIDEST = 60
"""Characters at which a column is cut where no widths are given."""


def printable(text: object, width: int | None = None) -> str:
    """Text on one line, safe for a terminal: controls, direction marks and surrogates as escapes; cut to width."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    source = str(text) if width is None else str(text)[: 4 * width]
    line = "".join(
        c.encode("unicode_escape", "surrogatepass").decode() if unicodedata.category(c) in UNSAFE else c for c in source
    )
    return line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…"


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int] | None = None, gap: int = 2
) -> str:
    """Rows under a head in columns; numbers to the right; a column is cut at its width (characters). gap: between."""
    limits = widths or [WIDEST] * len(head)
    cells = [[printable(cell, limit) for cell, limit in zip(row, limits, strict=True)] for row in rows]
    sizes = [max(len(str(line[i])) for line in [list(head), *cells]) for i in range(len(head))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(head))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(s) if r else v.ljust(s) for v, s, r in zip(values, sizes, right, strict=True))
        return (" " * gap).join(padded).rstrip()

    rule = (" " * gap).join("-" * size for size in sizes)
    return "\n".join([line(head), rule, *(line(row) for row in cells)])
