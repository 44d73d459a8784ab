r"""Whether two answers are equal, by structure; numbers and formulas by `same_formula`.

`second_verdict` runs in worker processes (it may need sympy, time and memory); everything here is bounded except that.
"""

import re
from fractions import Fraction

from ngrpo.grading.second.answers import (
    Answer,
    Based,
    Equation,
    Formula,
    Grid,
    Inequality,
    Ratio,
    SetOperation,
    Several,
    Words,
    read,
)
from ngrpo.grading.second.evaluation import Undefined, close, evaluate, symbols_of
from ngrpo.grading.second.formulas import Node
from ngrpo.grading.second.identity import constant, opposite_sides, same_formula
from ngrpo.grading.second.inequalities import region_of
from ngrpo.grading.second.regions import same_region
from ngrpo.grading.second.spelling import spelled, squeezed
from ngrpo.grading.second.stated import reference_text

_DECIMAL_COMMA = re.compile(r"(-?\d+),(\d{1,2}|\d{4,})")
_OPTION = re.compile(r"\(([A-J])\)\s*([^\s,].*)", re.DOTALL)
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
ELLIPSIS = Words("\\ldots")


def second_verdict(reference: object, answer: str) -> bool:
    """Whether an answer, as it stood in the box, equals the reference."""
    gold = reference_text(reference)
    if squeezed(spelled(gold)) == squeezed(spelled(answer)):
        return True
    if equal(read(gold), read(answer)):
        return True
    if option := _OPTION.fullmatch(spelled(gold)):  # a letter with what it stands for: either is the answer
        return any(equal(read(part), read(answer)) for part in option.groups())
    comma = _DECIMAL_COMMA.fullmatch(answer.strip())
    return comma is not None and equal(read(gold), read(f"{comma[1]}.{comma[2]}")) and "," not in gold


_PLAIN_INTEGER = re.compile(r"-?[0-9]{1,15}", re.ASCII)


def quick_verdict(gold: str, answer: str) -> bool | None:
    """The verdict on two plain integers or two equal texts, for which no worker is needed; None for others."""
    if gold == answer:
        return True
    if _PLAIN_INTEGER.fullmatch(gold) and _PLAIN_INTEGER.fullmatch(answer):
        return int(gold) == int(answer)
    return None


def equal(gold: Answer, answer: Answer) -> bool:
    """Whether two structures say the same. Not symmetric in one respect: a reference that is an equation in several
    variables wants an equation."""
    if isinstance(gold, Words) and gold == answer:
        return True
    if _is_set(gold) or _is_set(answer):
        a, b = region_of(gold), region_of(answer)
        if a is not None and b is not None:
            return same_region(a, b)
        if isinstance(gold, Inequality) and isinstance(answer, Inequality):
            return _same_inequality(gold, answer)
        if isinstance(gold, SetOperation) and isinstance(answer, SetOperation):
            return gold.sign == answer.sign and equal(gold.left, answer.left) and equal(gold.right, answer.right)
        return False
    if isinstance(gold, Equation) and isinstance(answer, Equation):
        return _same_equation(gold, answer)
    if isinstance(gold, Equation):
        return gold.name is not None and all(equal(side, answer) for side in gold.sides[1:])
    if isinstance(answer, Equation):
        return _equals_equation(gold, answer)
    if isinstance(gold, Several) or isinstance(answer, Several):
        whole = _without_domain(gold, answer), _without_domain(answer, gold)
        return _same_several(gold, answer) if whole == (gold, answer) else equal(*whole)
    if isinstance(gold, Grid) and isinstance(answer, Grid):
        return [len(r) for r in gold.rows] == [len(r) for r in answer.rows] and all(
            equal(a, b)
            for row, other in zip(gold.rows, answer.rows, strict=True)
            for a, b in zip(row, other, strict=True)
        )
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _same_ratio(gold, answer)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _same_in_base(gold, answer)
    return isinstance(gold, Formula) and isinstance(answer, Formula) and same_formula(gold, answer)


def _is_set(answer: Answer) -> bool:
    """Whether an answer can only be a set of reals."""
    if isinstance(answer, Several):
        mixed = len(answer.items) == 2 and (answer.opening, answer.closing) in (("(", "]"), ("[", ")"), ("[", "]"))
        conditions = not answer.opening and any(isinstance(item, Inequality) for item in answer.items[:1])
        ends = answer.items if len(answer.items) == 2 and answer.opening else ()
        return conditions or mixed or any(_infinite(item) for item in ends)
    if isinstance(answer, Words):
        return region_of(answer) is not None
    named = isinstance(answer, Formula) and answer.node.op == "symbol" and str(answer.node.value).startswith("mathbb")
    return named or isinstance(answer, Inequality | SetOperation)


def _infinite(answer: Answer) -> bool:
    node = answer.node if isinstance(answer, Formula) else None
    while node is not None and node.op == "negate":
        node = node.args[0]
    return node is not None and node.value == "infinity"


# --- equations and inequalities ---


def _value(equation: Equation) -> Answer | None:
    """What a named equation says; None where its sides contradict each other."""
    values = equation.sides[1:]
    return values[-1] if all(equal(values[-1], value) for value in values[:-1]) else None


def _same_equation(gold: Equation, answer: Equation) -> bool:
    if gold.name and answer.name:
        a, b = _value(gold), _value(answer)
        functions = all(re.fullmatch(r"y|[a-zA-Z]\([a-z]\)", name) for name in (gold.name, answer.name))
        alike = gold.name == answer.name or functions or not (_plain(gold.name) and _plain(answer.name))
        if a is not None and b is not None and alike and equal(a, b):
            return True
    if len(gold.sides) != 2 or len(answer.sides) != 2:
        return len(gold.sides) == len(answer.sides) and all(map(equal, gold.sides, answer.sides))
    nodes = [side.node for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
    if len(nodes) == 4:
        return opposite_sides((nodes[0], nodes[1]), (nodes[2], nodes[3])) is not None
    return all(map(equal, gold.sides, answer.sides))


def _plain(name: str) -> bool:
    """Whether a name is one variable."""
    return re.fullmatch(r"\\?[A-Za-z]+", name) is not None and (len(name) == 1 or name.startswith("\\"))


def _equals_equation(gold: Answer, answer: Equation) -> bool:
    """A reference without an equals sign against an equation: what it says, and it mustn't be false."""
    if answer.name is not None:
        value = _value(answer)
        return value is not None and equal(gold, value)
    last = answer.sides[-1]
    if all(equal(last, side) for side in answer.sides[:-1]):
        return equal(gold, last)
    first = answer.sides[0]
    unknown = isinstance(first, Formula) and bool(symbols_of(first.node))
    number = isinstance(last, Formula) and constant(last.node) and not _zero(last.node)
    return len(answer.sides) == 2 and unknown and number and equal(gold, last)


def _zero(node: Node) -> bool:
    try:
        return close(evaluate(node), Fraction(0))
    except Undefined:
        return False


def _same_inequality(gold: Inequality, answer: Inequality) -> bool:
    """Inequalities in several variables: the same sides, or one a positive multiple of the other."""
    for sides, signs in (
        (answer.sides, answer.signs),
        (answer.sides[::-1], tuple(_FLIPPED.get(s, s) for s in answer.signs[::-1])),
    ):
        if signs == gold.signs and all(map(equal, gold.sides, sides)):
            return True
    if len(gold.signs) != 1 or len(answer.signs) != 1:
        return False
    nodes = [side.node for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
    factor = opposite_sides((nodes[0], nodes[1]), (nodes[2], nodes[3])) if len(nodes) == 4 else None
    if factor is None:
        return False
    wanted = gold.signs[0] if factor > 0 else _FLIPPED.get(gold.signs[0])
    return wanted == answer.signs[0]


# --- several answers ---


def _same_several(gold: Answer, answer: Answer) -> bool:
    if not isinstance(gold, Several) or not isinstance(answer, Several):
        one, other = (gold, answer) if isinstance(gold, Several) else (answer, gold)
        assert isinstance(one, Several)
        if isinstance(other, Grid):
            cells = [row[0] for row in other.rows if len(row) == 1]
            return len(cells) == len(other.rows) and one.opening == "(" and _in_order(one.items, tuple(cells))
        return len(one.items) == 1 and one.opening == "{" and equal(one.items[0], other)
    for one, whole in ((gold, answer), (answer, gold)):
        if one.opening == "{" and len(one.items) == 1 and isinstance(one.items[0], Several) and whole.opening == "(":
            return equal(one.items[0], whole)
    brackets = {gold.opening + gold.closing, answer.opening + answer.closing}
    if brackets <= {"", "{}"}:
        if _needs_order(gold, answer):
            return _in_order(gold.items, answer.items)
        return _same_members(gold.items, answer.items) and _same_members(answer.items, gold.items)
    if brackets == {"[]", "()"} or brackets == {"[]", ""}:
        return len(gold.items) != 2 and _in_order(gold.items, answer.items)
    if "{}" in brackets or len(brackets - {""}) > 1:
        return False
    return _in_order(gold.items, answer.items)


def _without_domain(one: Answer, other: Answer) -> Answer:
    """f(x) = x², x > 0 without its condition, where the other side has none."""
    if isinstance(one, Several) and not isinstance(other, Several) and not one.opening and len(one.items) == 2:
        said, condition = one.items
        if isinstance(said, Equation) and isinstance(condition, Inequality):
            return said
    return one


def _needs_order(gold: Several, answer: Several) -> bool:
    """Sequences with an ellipsis, and values against differently named values."""
    if any(_ellipsis(item) for item in (*gold.items, *answer.items)):
        return True
    names = [{i.name for i in side.items if isinstance(i, Equation)} for side in (gold, answer)]
    roots = all(re.fullmatch(r"x_\{?\d\}?", str(name)) for name in names[0] | names[1])
    return not roots and bool(names[0]) != bool(names[1]) and max(len(names[0]), len(names[1])) > 1


def _ellipsis(item: Answer) -> bool:
    return isinstance(item, Words) and item.text.strip() == r"\ldots"


def _in_order(a: tuple[Answer, ...], b: tuple[Answer, ...]) -> bool:
    return len(a) == len(b) and all(map(equal, a, b))


def _same_members(a: tuple[Answer, ...], b: tuple[Answer, ...]) -> bool:
    """Whether each of a is among b."""
    return all(any(equal(item, other) or equal(other, item) for other in b) for item in a)


# --- ratios, times and bases ---


def _same_ratio(gold: Answer, answer: Answer) -> bool:
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        if gold.clock and answer.clock:
            halves = {gold.clock.lstrip("0123456789:"), answer.clock.lstrip("0123456789:")}
            same = gold.clock.rstrip("apm") == answer.clock.rstrip("apm")
            return same and len(halves - {""}) < 2
        if len(gold.parts) != len(answer.parts):
            return False
    try:
        a, b = _ratio_values(gold), _ratio_values(answer)
    except Undefined:
        return False
    if len(a) != len(b):
        return False
    return all(close(a[0] * y, b[0] * x) for x, y in zip(a, b, strict=True))


def _ratio_values(answer: Answer) -> list[Fraction]:
    """The parts of a ratio; a number is a ratio to one. Raises Undefined."""
    parts = answer.parts if isinstance(answer, Ratio) else (answer, Formula(Node("number", value=Fraction(1))))
    values = [evaluate(part.node) for part in parts if isinstance(part, Formula)]
    if len(values) != len(parts) or any(close(value, Fraction(0)) for value in values):
        raise Undefined("no ratio")
    return values


def _same_in_base(gold: Answer, answer: Answer) -> bool:
    """Digits in the same base, or of the same value; a base that one side leaves out is the other's."""
    if isinstance(gold, Based) and isinstance(answer, Based):
        try:
            return int(gold.digits, gold.base) == int(answer.digits, answer.base)
        except ValueError:
            return gold == answer
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    assert isinstance(based, Based)
    if not isinstance(other, Formula) or other.node.op != "number":
        return False
    return other.node.value == (int(based.digits) if based.digits.isdecimal() else None)
