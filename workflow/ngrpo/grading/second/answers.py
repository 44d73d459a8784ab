r"""An answer's structure: words, a formula with its unit, an equation, an inequality, several things, a matrix.

`read` takes any text and always returns something: what can't be read as mathematics is Words.
"""

import re
from dataclasses import dataclass, replace

from ngrpo.grading.second.composed import determinant, in_two_units
from ngrpo.grading.second.formulas import FUNCTIONS, Node, Unreadable, number
from ngrpo.grading.second.latex import parse_formula
from ngrpo.grading.second.spelling import NEW_ROW, magnitude, number_word, spelled, squeezed
from ngrpo.grading.second.splitting import bracketed, has_outer_pair, split_top
from ngrpo.grading.second.units import Unit, unit_of

MOST_ITEMS = 200


@dataclass(frozen=True)
class Words:
    """A text that says something: a name, yes, no solution; folded to lower case unless it is one letter."""

    text: str


@dataclass(frozen=True)
class Formula:
    """A formula, with its unit where one is named."""

    node: Node
    unit: Unit | None = None


@dataclass(frozen=True)
class Several:
    """Several answers. opening, closing: their brackets, empty for a list. Only "(", "[" and "<" hold an order."""

    items: tuple["Answer", ...]
    opening: str = ""
    closing: str = ""


@dataclass(frozen=True)
class Equation:
    """Sides joined by equals signs; name: what stands before the first, squeezed, if it only names something."""

    sides: tuple["Answer", ...]
    name: str | None = None


@dataclass(frozen=True)
class Inequality:
    """Sides joined by signs of order, \\ne or \\in."""

    sides: tuple["Answer", ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class SetOperation:
    """Two sets joined by \\cup, \\cap or \\setminus."""

    sign: str
    left: "Answer"
    right: "Answer"


@dataclass(frozen=True)
class Ratio:
    """a : b : c; clock: the text is a time of day."""

    parts: tuple["Answer", ...]
    clock: str | None = None


@dataclass(frozen=True)
class Based:
    """Digits in a base: 1011_2."""

    digits: str
    base: int


@dataclass(frozen=True)
class Grid:
    """A matrix."""

    rows: tuple[tuple["Answer", ...], ...]


Answer = Words | Formula | Several | Equation | Inequality | SetOperation | Ratio | Based | Grid

_OR = re.compile(r"\s*,?\s*(?:«\s*,?\s*or\s*,?\s*»|\\lor(?![A-Za-z])|(?<![A-Za-z\\«])or(?![A-Za-z»]))\s*")
_AND = re.compile(r"\s*,?\s*(?:«\s*,?\s*and\s*,?\s*»|\\land(?![A-Za-z])|(?<![A-Za-z\\«])and(?![A-Za-z»])|\s&\s)\s*")
_SIGNS = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|notin)(?![A-Za-z])|<|>|=")
_SETS = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])")
_MINUS_SET = re.compile(r"(\\mathbb\{[RZNQC]\})\s*-\s*(?=\\\{)")
_MATRIX = re.compile(r"\\begin\{([a-zA-Z]*(?:matrix|array|cases)\*?)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_TRANSPOSED = re.compile(r"(.*[)\]}])\s*\^\s*(?:T|\{\s*T\s*\}|\\top|\{\s*\\top\s*\})", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_FOR_ALL = re.compile(r"^\\forall[^,:]{1,40}[,:]\s*")
_DOMAIN = re.compile(
    r"[,;]?\s*(?:«(?:for|where|with|if|when)[^»]{0,40}»|\b(?:for|where)\b)?\s*[,(]?\s*"
    r"(?<![A-Za-z])[a-zA-Z]\s*\\in\s*\\mathbb\{[A-Z]\}\^?[+*]?\)?\s*$"
)
_BASED = re.compile(r"\(?(\d[0-9A-Fa-f ]*)\)?\s*_\s*\{?\s*(?:«base»|base)?\s*(\d{1,2}|«[a-z]+»)\s*\}?")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*(?:«([^»]*)»|([AaPp]\.?\s?[Mm]\.?))?")
_LETTERS_ONLY = re.compile(r"[A-Za-z][A-Za-z'\-]*(?:\s+[A-Za-z'\-]+)*")
_COUNTED = re.compile(r"«-?\d")
_LETTERS = re.compile(r"«(?:[A-J]|\d+)(?:\s*(?:,|&|,?\s*and|or)\s*(?:[A-J]|\d+)(?![A-Za-z]))+»[.]?")
_WORDS_ONLY = re.compile(r"«[^»]*»[.!]?")
_SAME_WORDS = {
    **dict.fromkeys(("dne", "doesn't exist", "does not exist"), "does not exist"),
    **dict.fromkeys(("infinitely many", "infinitely many solutions", "infinite solutions"), "infinitely many"),
    **dict.fromkeys(("there is no solution", "there are no solutions", "no solution exists"), "no solution"),
}
_VARIABLES = re.compile(r"(?!.*(.).*\1)[abcdkmnpqrstuvwxyz]{2,3}")
_TRAILING = re.compile(
    r"^(.*[\d)}\]!%a-zA-Z])\s*(«[^»]*»(?:\s*\^\s*\{?-?\d\}?)?|\^\s*\\circ|\^\s*\{\s*\\circ\s*\}|%)$", re.DOTALL
)
_BARE_UNIT = re.compile(
    r"(?<=[\d)}])(?:\s+|(?<=\d))([A-Za-z]{2,40}(?:[ /]{1,3}[A-Za-z]{1,40}|\^\{?\d\}?){0,4}|(?<=\s)[a-zA-Z])$"
)
_WORD_IN_FORMULA = re.compile(r"(?!(?:sin|cos|tan|log|ln))[A-Za-z]{4,}")
_MONEY = re.compile(r"^(-?)\s*(\\dollar|\\euro|\\pound)\s*")
_MONEY_AFTER = re.compile(r"\s*(\\dollar|\\euro|\\pound)$")


def read(text: str) -> Answer:
    """The structure of an answer as it was written."""
    return _read(spelled(text), 0)


def _read(text: str, depth: int) -> Answer:
    if depth > 12 or len(text) > 10_000:
        return Words(squeezed(text).lower())
    text = _FOR_ALL.sub("", text.strip())
    without_domain = _DOMAIN.sub("", text)
    text = without_domain or text
    if matrix := _written_matrix(text, depth):
        return matrix
    if groups := _groups(text, depth):
        return groups
    if joined := _joined(text, depth):
        return joined
    text = _THOUSANDS.sub(lambda m: m[1].replace(",", ""), text)
    parts = split_top(text, ",")
    if len(parts) > 1:
        return _list([_read(part, depth + 1) for part in parts if part.strip()])
    if relation := _relation(text, depth):
        return relation
    if operation := _set_operation(text, depth):
        return operation
    if has_outer_pair(text) and (held := _held(text, depth)):
        return held
    return _single(text, depth)


def _groups(text: str, depth: int) -> Answer | None:
    """(0;0),(1;2) and p=5,q=2;p=7,q=2: semicolons outside brackets part groups, whose commas make tuples."""
    parts = [part for part in split_top(text, ";") if part.strip()]
    if len(parts) < 2 or len(parts) > MOST_ITEMS:
        return None
    items: list[Answer] = []
    for part in parts:
        inner = _read(part, depth + 1)
        if isinstance(inner, Several) and not inner.opening:
            inner = Several(inner.items, "(", ")")
        items.append(inner)
    return _list(items)


def _joined(text: str, depth: int) -> Answer | None:
    """Parts joined by "or" and "and": a union or an intersection of inequalities, else a list."""
    for pattern, sign in ((_OR, r"\cup"), (_AND, r"\cap")):
        parts = [part for part in split_top(text, pattern) if part.strip()]
        if 1 < len(parts) <= MOST_ITEMS:
            items = [_read(part, depth + 1) for part in parts]
            if any(isinstance(item, Inequality | SetOperation) for item in items):
                whole: Answer = items[0]
                for item in items[1:]:
                    whole = SetOperation(sign, whole, item)
                return whole
            return _list(items)
    return None


def _list(items: list[Answer]) -> Answer:
    """A list without lists in it."""
    flat: list[Answer] = []
    for item in items:
        flat += item.items if isinstance(item, Several) and not item.opening else [item]
    return flat[0] if len(flat) == 1 else Several(tuple(flat[:MOST_ITEMS]))


def _written_matrix(text: str, depth: int) -> Answer | None:
    """A matrix, a multiple of one, one that is transposed, a determinant, a system of equations in cases."""
    if transposed := _TRANSPOSED.fullmatch(text):
        held = _read(transposed[1], depth + 1)
        if isinstance(held, Grid) and len({len(row) for row in held.rows}) == 1:
            return Grid(tuple(zip(*held.rows, strict=True)))
        return held if isinstance(held, Several) and held.opening else None
    if not (match := _MATRIX.search(text)) or match.end() < len(text):
        return None
    held, factor = _matrix(match[2], depth), text[: match.start()].strip()
    if not isinstance(held, Grid):
        return held if not factor else None
    cells = [[cell.node for cell in row if isinstance(cell, Formula)] for row in held.rows]
    plain = all(len(row) == len(whole) for row, whole in zip(cells, held.rows, strict=True))
    if match[1].startswith("vmatrix"):
        value = determinant(cells) if plain else None
        return Formula(value) if value is not None and not factor else None
    if match[1].startswith("cases") and all(len(row) == 1 and isinstance(row[0], Equation) for row in held.rows):
        return _list([row[0] for row in held.rows])
    if not factor:
        return held
    by = _parsed(factor) if plain else None
    if by is None:
        return None
    return Grid(tuple(tuple(Formula(Node("multiply", (by, cell))) for cell in row) for row in cells))


def _matrix(body: str, depth: int) -> Answer:
    rows = [row for row in split_top(body, NEW_ROW) if row.strip()]
    if len(rows) == 1 and "&" not in rows[0]:
        return _read(rows[0], depth + 1)
    return Grid(tuple(tuple(_read(cell, depth + 1) for cell in split_top(row, "&")) for row in rows[:MOST_ITEMS]))


def _relation(text: str, depth: int) -> Answer | None:
    parts, signs = split_top(text, _SIGNS), split_top(text, _SIGNS, separators=True)
    if not signs:
        return None
    if not parts[0].strip():
        parts, signs = parts[1:], signs[1:]
    if not parts or not all(part.strip() for part in parts):
        return Words(squeezed(text))
    if not signs:
        return _read(parts[0], depth + 1)
    sides = tuple(_read(part, depth + 1) for part in parts)
    if set(signs) <= {"=", r"\approx", r"\equiv"}:
        names = [squeezed(part) if _names(part) else None for part in (parts[0], parts[-1])]
        if names[0] is None and names[1] is not None and len(parts) == 2:
            return Equation((sides[1], sides[0]), names[1])
        return Equation(sides, names[0])
    if set(signs) == {r"\in"} and len(parts) == 2:
        return sides[1]
    return Inequality(sides, tuple(signs))


def _names(text: str) -> bool:
    """Whether a side of an equation only names something: x, f(x), AB, a_3, (p, q), V_1 : V_2, an area in words."""
    name = squeezed(re.sub(r"_(?:\{[^{}]*\}|\w)|\([^()]*\)(?!\s*$)", "", text))
    called = re.sub(r"(?<=[A-Za-z'])\([^()]*\)$", "", name)
    return bool(re.search(r"[A-Za-z]", name)) and not re.search(r"[0-9+*^=-]|\\(?:sqrt|pi|cdot)", called)


def _set_operation(text: str, depth: int) -> Answer | None:
    text = _MINUS_SET.sub(r"\1 \\setminus ", text)
    parts, signs = split_top(text, _SETS), split_top(text, _SETS, separators=True)
    if not signs or not all(part.strip() for part in parts):
        return None
    whole = _read(parts[0], depth + 1)
    for sign, part in zip(signs, parts[1:], strict=True):
        whole = SetOperation(sign, whole, _read(part, depth + 1))
    return whole


def _held(text: str, depth: int) -> Answer | None:
    """What one pair of brackets holds: a tuple, an interval, a set; None for parentheses around a formula."""
    opening, inner, closing = bracketed(text)
    if matrix := _MATRIX.fullmatch(inner.strip()):
        return _matrix(matrix[2], depth)
    if opening == "{" and not inner.strip():
        return Words("emptyset")
    if opening == "{":
        builder = split_top(inner, "|") if "|" in inner else split_top(inner, ":")
        if len(builder) == 2 and _SIGNS.search(builder[1]):
            return _read(builder[1], depth + 1)
        held = _read(inner, depth + 1)
        items = held.items if isinstance(held, Several) and not held.opening else (held,)
        return Several(items, "{", "}")
    parts = split_top(inner, ",")
    if len(parts) == 1:
        parts = split_top(inner, ";")
    if len(parts) > 1 and all(part.strip() for part in parts):
        items = tuple(_read(part, depth + 1) for part in parts[:MOST_ITEMS])
        rows = [item.items for item in items if isinstance(item, Several) and item.opening == "["]
        if opening == "[" and len(rows) == len(items) and len({len(row) for row in rows}) == 1:
            return Grid(tuple(rows))  # a list of rows, as programs write a matrix
        return Several(items, opening, closing)
    if opening == "(" and (relation := _relation(inner, depth + 1)):
        return relation
    return None


def _single(text: str, depth: int) -> Answer:
    """One quantity, or words."""
    if based := _BASED.fullmatch(text):
        base = number_word(based[2].strip("«»")) if "«" in based[2] else int(based[2])
        if base is not None:
            return Based(based[1].replace(" ", "").upper(), base)
    if clock := _CLOCK.fullmatch(text):
        parts = tuple(_read(part, depth + 1) for part in clock.groups()[:2] if part)
        half = re.sub(r"[^apm]", "", (clock[3] or clock[4] or "").lower())
        return Ratio(parts, f"{int(clock[1])}:{clock[2]}{half}")
    ratio = split_top(text, ":")
    if len(ratio) > 1 and all(part.strip() for part in ratio):
        return Ratio(tuple(_read(part, depth + 1) for part in ratio))
    if _WORDS_ONLY.fullmatch(text) and (_COUNTED.match(text) or _LETTERS.fullmatch(text)):
        return _read(text.strip("«».! "), depth + 1)  # all of it is in \\text
    if _WORDS_ONLY.fullmatch(text) or (
        not _VARIABLES.fullmatch(text) and len(text) > 1 and _LETTERS_ONLY.fullmatch(text)
    ):
        return _words(text)
    return _quantity(text) or _words(text)


def _words(text: str) -> Answer:
    plain = re.sub(r"[«»{}.,;:!\"$]", " ", text)
    plain = " ".join(plain.split())
    if (value := number_word(plain)) is not None:
        return Formula(number(value))
    if plain.lower() == "infinity":
        return Formula(Node("symbol", value="infinity"))
    return Words(plain if len(plain) == 1 else _SAME_WORDS.get(plain.lower(), plain.lower()))


def _quantity(text: str) -> Answer | None:
    """A formula with what stands around it: money, percent, degrees, a unit, a word before or after."""
    if compound := in_two_units(text):
        return Formula(*compound)
    unit: Unit | None = None
    if money := _MONEY.match(text) or _MONEY_AFTER.search(text):
        sign, symbol = (money[1], money[2]) if money.re is _MONEY else ("", money[1])
        unit, text = unit_of(symbol), sign + text.replace(money[0], "", 1)
    text = re.sub(r"^«[^»]*»(?=.)", "", text).strip()
    factor = ""
    for _ in range(3):
        matched = _TRAILING.match(text)
        if matched is None or (matched[2].startswith("^") and any(f"\\{f}" in matched[1] for f in FUNCTIONS)):
            break
        text, word = matched[1].strip(), matched[2]
        scale = magnitude(word.strip("«» "))
        factor = scale or factor
        named = None if word.startswith("«per") else unit_of(re.sub(r"[«»]", " ", word))
        unit = unit or named
    text = re.sub(r"\\ldots$", "", text).strip() if re.search(r"[a-z]\s*\\ldots$", text) else text
    bare = _BARE_UNIT.search(text)
    node = None if bare is not None and unit_of(bare[1]) is not None else _parsed(text)
    if node is None and bare is not None:
        node, scale = _parsed(text[: bare.start()]), magnitude(bare[1].split()[0])
        factor = scale or factor
        unit = unit or unit_of(bare[1].partition(" ")[2] if scale else bare[1])
    if node is None:
        return None
    if factor:
        node = Node("multiply", (node, parse_formula(factor)))
    variants = _signs_chosen(node)
    if len(variants) > 1:
        return Several(tuple(Formula(variant, unit) for variant in variants))
    return Formula(node, unit)


def _parsed(text: str) -> Node | None:
    """The formula; None where there is none, or where its letters are a word."""
    if _WORD_IN_FORMULA.search(re.sub(r"\\[A-Za-z]+|_\{[^}]*\}|«[^»]*»", " ", text)):
        return None
    try:
        return parse_formula(text)
    except Unreadable:
        return None


def _signs_chosen(node: Node) -> list[Node]:
    """A formula with ± as its two formulas; ∓ goes against ±."""

    def chosen(part: Node, plus: bool) -> Node:
        args = tuple(chosen(arg, plus) for arg in part.args)
        if part.op in ("plus-minus", "minus-plus"):
            positive = (part.op == "plus-minus") == plus
            return Node("add", (args[0], args[1] if positive else Node("negate", (args[1],))))
        return replace(part, args=args)

    def has_signs(part: Node) -> bool:
        return part.op in ("plus-minus", "minus-plus") or any(has_signs(arg) for arg in part.args)

    return [chosen(node, True), chosen(node, False)] if has_signs(node) else [node]
