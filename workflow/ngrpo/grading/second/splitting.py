"""Cutting an answer at signs that stand outside all brackets."""

import re

_BRACKET = re.compile(
    r"\\begin\{[a-zA-Z*]+\}|\\end\{[a-zA-Z*]+\}|\\langle|\\rangle|\\\{|\\\}|\\lfloor|\\rfloor|\\lceil|\\rceil|[()\[\]{}«»]"
)
_OPENING = ("(", "[", "{", "«", r"\{", r"\langle", r"\lfloor", r"\lceil")
_PAIRS = ((r"\{", r"\}", "{", "}"), (r"\langle", r"\rangle", "(", ")"), ("(", ")", "(", ")"), ("[", "]", "[", "]"),
          ("(", "]", "(", "]"), ("[", ")", "[", ")"), ("]", "[", "(", ")"), ("]", "]", "(", "]"),
          ("[", "[", "[", ")"))  # fmt: skip
"""Brackets as written, and as they are meant."""


def _opens(bracket: str) -> bool:
    return bracket in _OPENING or bracket.startswith(r"\begin")


def split_top(text: str, separator: str | re.Pattern[str], *, separators: bool = False) -> list[str]:
    """The parts between separators outside brackets; or, asked so, the separators themselves."""
    pattern = re.compile(re.escape(separator)) if isinstance(separator, str) else separator
    cuts = [m for m in pattern.finditer(text) if m.end() > m.start()]
    if not cuts:
        return [] if separators else [text]
    depth, changes = 0, []
    for bracket in _BRACKET.finditer(text):
        depth += 1 if _opens(bracket[0]) else -1
        changes.append((depth, bracket.start(), bracket.end()))
    outside, at, level = [], 0, 0
    for cut in cuts:
        while at < len(changes) and changes[at][1] < cut.start():
            level = changes[at][0]
            at += 1
        inside = at and changes[at - 1][1] <= cut.start() < changes[at - 1][2]
        if level == 0 and not inside:
            outside.append(cut)
    if separators:
        return [cut[0].strip() for cut in outside]
    starts = [0, *(cut.end() for cut in outside)]
    ends = [*(cut.start() for cut in outside), len(text)]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def has_outer_pair(text: str) -> bool:
    """Whether one pair of brackets holds the whole text."""
    whole = text.strip()
    if not any(whole.startswith(p[0]) and whole.endswith(p[1]) and len(whole) >= len(p[0]) + len(p[1]) for p in _PAIRS):
        return False
    if whole[0] == "]" or (whole[-1] == "["):
        return len(split_top(whole[1:-1], ",")) == 2
    depth = 0
    for bracket in _BRACKET.finditer(whole):
        depth += 1 if _opens(bracket[0]) else -1
        if depth == 0 and bracket.end() < len(whole):
            return False
    return depth == 0


def bracketed(text: str) -> tuple[str, str, str]:
    """(opening, inner text, closing) of a text that one pair of brackets holds."""
    whole = text.strip()
    for opening, closing, meant_opening, meant_closing in _PAIRS:
        if whole.startswith(opening) and whole.endswith(closing):
            return meant_opening, whole[len(opening) : -len(closing)], meant_closing
    return "", whole, ""
