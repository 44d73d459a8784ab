"""Which problems are one problem, and which are nearly one.

**Equal**: the same `fingerprint`, the text without case, white space, dollar signs and LaTeX spacing. Spacing between
two digits and the height of a digit stay, since 1 1/2 isn't 11/2 and 2³ isn't 23; so does the case of single letters,
which are variables.

**Near-duplicates**: `Overlap.most_similar` compares a problem with all benchmark problems at once. A problem's triples
are its runs of three tokens (words, numbers, signs; LaTeX's spacing, fonts and delimiters left out). Similarity is the
share of a benchmark problem's triples that the other problem holds, too: a text put around it lowers that not at all,
some words exchanged in it little. Of a benchmark problem with fewer than FEW triples it is the share of both problems'
triples (Jaccard), since a few triples lie in many longer problems.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

FEW = 8
NEAR = 0.7
"""Similarity from which problems are near-duplicates where no other is set. Among 975 real competition problems and 470
of AIME24, AMC23 and MATH500 the near-duplicates lie above 0.85, all other pairs below 0.55."""

Triple = tuple[str, str, str]

_LATEX_SPACE = re.compile(r"(?:\\[,;:!> ]|~|\\(?:quad|qquad|left|right|displaystyle)(?![a-zA-Z])|[\s$]+)+")
_BRACED = re.compile(r"([\^_])\{(\w)\}")
_WORD = re.compile(r"\\[a-zA-Z]+|[^\W\d_]{2,}")
_FORMATTING = re.compile(
    r"\\(?:quad|qquad|left|right|displaystyle|textstyle|text|textbf|textit|mathrm|mathbf|mathit|operatorname|big|Big)"
    r"(?![a-zA-Z])|\\[,;:!> ()\[\]]|[~${}]"
)
_FRACTION = re.compile(r"\\[dt]frac(?![a-zA-Z])")
_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:[.,]\d+)*|[-+*/=<>^_|%!]")


def fingerprint(problem: str) -> str:
    """What equal problems have in common: their text without case, spacing and dollar signs."""
    text = _LATEX_SPACE.sub(" ", _BRACED.sub(r"\1\2", _one_height(problem)))
    text = _WORD.sub(lambda word: word[0] if word[0].startswith("\\") else word[0].casefold(), text)
    return re.sub(r"(?<!\d) | (?!\d)", "", text)  # a space between two digits stays


def _one_height(text: str) -> str:
    """Compatible characters as plain ones (NFKC), raised and lowered ones after ^ and _, fractions as their numbers."""
    return "".join(map(_plain, unicodedata.normalize("NFC", text)))


def _plain(character: str) -> str:
    if character.isascii():
        return character
    kind, _, _ = unicodedata.decomposition(character).partition(" ")
    plain = unicodedata.normalize("NFKC", character)
    if kind in ("<super>", "<sub>"):
        return f"{'^' if kind == '<super>' else '_'}{plain}"
    if kind == "<fraction>":
        return " " + plain.replace("\u2044", "/") + " "
    return character if kind == "<circle>" else plain


def triples(problem: str) -> frozenset[Triple]:
    """A problem's runs of three tokens; a shorter problem has none."""
    text = _FRACTION.sub(r"\\frac", _one_height(problem))
    tokens = _TOKEN.findall(_FORMATTING.sub(" ", text).casefold())
    return frozenset(zip(tokens, tokens[1:], tokens[2:], strict=False))


class Overlap:
    """Benchmark problems, ready to be compared with others."""

    def __init__(self, problems: Mapping[str, str]):
        """problems: their texts by a name that says where each is from."""
        self.problems = {name: triples(text) for name, text in problems.items()}
        self.having: dict[Triple, list[str]] = defaultdict(list)
        for name, parts in self.problems.items():
            for part in parts:
                self.having[part].append(name)

    def most_similar(self, problem: str) -> tuple[str, float] | None:
        """The most similar benchmark problem's name and the similarity (0 to 1); None where none shares a triple."""
        own = triples(problem)
        shared = Counter(name for part in own for name in self.having.get(part, ()))
        if not shared:
            return None
        return max(self._similarities(shared.items(), len(own)), key=lambda each: (each[1], each[0]))

    def _similarities(self, shared: Iterable[tuple[str, int]], own: int) -> Iterable[tuple[str, float]]:
        for name, common in shared:
            theirs = len(self.problems[name])
            yield name, common / (theirs if theirs >= FEW else theirs + own - common)
