"""Text for a terminal: the one function that prints, the one table of all commands, strings that can't control it.

Shown text comes from models, graders, configuration and other people's files: control characters (ESC, C1, carriage
returns) and text-direction marks are escaped, so that nobody's text moves the cursor, sets a title or hides a line.
"""

import math
import sys
import unicodedata
from collections.abc import Sequence

UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that are escaped: controls, direction marks, surrogates, separators of lines and paragraphs."""
WIDEST = 60
"""Characters at which a column is cut where no widths are given."""
LONGEST_VALUE = 200
"""Characters of a foreign value that a message quotes."""


def escaped(text: object, keep: str = "\n\t") -> str:
    """Text whose controls, direction marks and surrogates are escapes. keep: the control characters that may stay."""
    source = str(text)
    if source.isprintable():
        return source
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode()
        if c not in keep and unicodedata.category(c) in UNSAFE
        else c
        for c in source
    )


def printable(text: object, width: int | None = None) -> str:
    """Text on one line, safe for a terminal: controls, direction marks and surrogates as escapes; cut to width."""
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    line = escaped(str(text) if width is None else str(text)[: 4 * width], keep="")
    return line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…"


def quoted(value: object) -> str:
    """A foreign value as a message quotes it: on one line, and no longer than LONGEST_VALUE."""
    return printable(value, LONGEST_VALUE)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text, escaped, to standard output (err: to standard error): what every command and stage prints with.

    Line breaks stay; a foreign name in a line goes through `printable` first, so that it can't fake another line.
    Characters that the terminal's encoding lacks are escaped, too.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by who started the command
        return
    encoding = stream.encoding or "utf-8"
    print(escaped(text).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int] | None = None, gap: int = 2
) -> str:
    """Rows under a head in columns; numbers to the right; a column is cut at its width (characters). gap: between."""
    limits = widths or [WIDEST] * len(head)
    names = [printable(name) for name in head]
    cells = [[printable(cell, limit) for cell, limit in zip(row, limits, strict=True)] for row in rows]
    sizes = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(names))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(s) if r else v.ljust(s) for v, s, r in zip(values, sizes, right, strict=True))
        return (" " * gap).join(padded).rstrip()

    rule = (" " * gap).join("-" * size for size in sizes)
    return "\n".join([line(names), rule, *(line(row) for row in cells)])
