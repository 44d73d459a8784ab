r"""The set of reals that an answer says: an interval, a union, an inequality in one variable, words."""

import itertools
from fractions import Fraction
from functools import reduce

from ngrpo.grading.second.answers import Answer, Equation, Formula, Inequality, SetOperation, Several, Words
from ngrpo.grading.second.evaluation import Undefined, Value, close, evaluate, inexact, symbols_of
from ngrpo.grading.second.formulas import Node
from ngrpo.grading.second.identity import constant
from ngrpo.grading.second.regions import (
    EVERYTHING,
    INFINITY,
    NOTHING,
    Interval,
    Region,
    complement,
    intersection,
    interval,
    united,
)
from ngrpo.grading.second.symbolic import solution_ends

_EMPTY = ("emptyset", "\\emptyset", "no solution", "no solutions", "no real solution", "no real solutions", "empty set",
          "the empty set", "none")  # fmt: skip
_ALL = ("all real numbers", "all reals", "real numbers", "the real numbers", "any real number", "mathbb r")
_BRACKETS = {"()": (False, False), "[)": (True, False), "(]": (False, True), "[]": (True, True)}


def region_of(answer: Answer) -> Region | None:
    """The set of reals that an answer is; None where it is none, or one that can't be found."""
    try:
        return _region(answer)
    except Undefined:
        return None


def _region(answer: Answer) -> Region | None:
    if isinstance(answer, Words):
        return NOTHING if answer.text in _EMPTY else EVERYTHING if answer.text in _ALL else None
    if isinstance(answer, Formula):
        return EVERYTHING if answer.node.op == "symbol" and answer.node.value == "mathbbR" else None
    if isinstance(answer, Equation):
        return _point(answer.sides[-1]) if answer.name else None
    if isinstance(answer, SetOperation):
        return _operation(answer)
    if isinstance(answer, Inequality):
        return _inequality(answer)
    if isinstance(answer, Several):
        return _several(answer)
    return None


def _several(answer: Several) -> Region | None:
    """An interval, or a finite set; of inequalities what all allow, or, where that is nothing, what any allows."""
    if not answer.opening and all(isinstance(item, Inequality) for item in answer.items):
        parts = [region_of(item) for item in answer.items]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return reduce(intersection, known) or united([one for part in known for one in part])
    first, *others = answer.items
    if not answer.opening and isinstance(first, Inequality) and first.signs == (r"\ne",):  # x ≠ 0, 1
        apart = [region_of(Inequality((first.sides[0], other), first.signs)) for other in others]
        known = [part for part in (region_of(first), *apart) if part is not None]
        return reduce(intersection, known) if len(known) == len(answer.items) else None
    ends = [item.node for item in answer.items if isinstance(item, Formula) and constant(item.node)]
    if len(ends) != len(answer.items):
        return None
    brackets = answer.opening + answer.closing
    if brackets == "{}":
        return united([part for node in ends for part in _point(Formula(node)) or ()])
    if len(ends) == 2 and brackets in _BRACKETS:
        has_low, has_high = _BRACKETS[brackets]
        return interval(evaluate(ends[0]), has_low, evaluate(ends[1]), has_high)
    return None


def _point(answer: Answer) -> Region | None:
    if isinstance(answer, Formula) and constant(answer.node):
        value = evaluate(answer.node)
        return interval(value, True, value, True)
    return region_of(answer)


def _operation(answer: SetOperation) -> Region | None:
    left, right = region_of(answer.left), region_of(answer.right)
    if left is None or right is None:
        return None
    if answer.sign == r"\cup":
        return united([*left, *right])
    return intersection(left, right if answer.sign == r"\cap" else complement(right))


def _inequality(answer: Inequality) -> Region | None:
    """A chain a < x ≤ b, or any inequality in one variable that has finitely many ends."""
    region: Region | None = EVERYTHING
    for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
        if sign == r"\in" and region is not None:
            part = region_of(right)
        elif isinstance(left, Formula) and isinstance(right, Formula):
            part = _one_sign(left.node, sign, right.node)
        else:
            part = None
        if part is None or region is None:
            return None
        region = intersection(region, part)
    names = frozenset().union(*(symbols_of(s.node) for s in answer.sides if isinstance(s, Formula)))
    return region if len(names) == 1 or r"\in" in answer.signs else None


def _one_sign(left: Node, sign: str, right: Node) -> Region | None:
    """Where left < right holds. Raises Undefined."""
    difference = Node("add", (left, Node("negate", (right,))))
    names = symbols_of(difference)
    if _is_infinite(left) or _is_infinite(right):
        return EVERYTHING
    if len(names) != 1 and not _opaque(left, right):
        return None
    if _opaque(left, right):
        name, node = (left, right) if constant(right) else (right, left)
        ends = [inexact(evaluate(node))]
        difference = Node("add", (left, Node("negate", (right,))))
        return _between(ends, lambda x: _signed(x - ends[0] if name is left else ends[0] - x), sign)
    (variable,) = names
    turns = solution_ends(difference, variable)
    if turns is None:
        return None

    def holds(x: Value) -> int:
        return _signed(evaluate(difference, {variable: x}))

    return _between(turns, holds, sign)


def _opaque(left: Node, right: Node) -> bool:
    """f(x) < 1: an unknown function stands for a number."""
    return any(
        a.op == "call" and str(a.value).startswith("?") and constant(b) for a, b in ((left, right), (right, left))
    )


def _is_infinite(node: Node) -> bool:
    return node.value == "infinity" or (node.op == "negate" and node.args[0].value == "infinity")


def _signed(value: Value) -> int:
    """-1, 0 or 1. Raises Undefined for a complex number."""
    number = inexact(value)
    if getattr(number, "imag", 0):
        raise Undefined("a complex number has no sign")
    return 0 if close(value, Fraction(0)) else 1 if number > 0 else -1


def _between(ends: list[Value], sign_at: object, sign: str) -> Region:
    """The region whose ends are known, by the sign of left - right at each end and between."""
    wanted = {"<": (-1,), r"\le": (-1, 0), ">": (1,), r"\ge": (0, 1), r"\ne": (-1, 1)}.get(sign)
    if wanted is None:
        raise Undefined(f"the sign {sign}")

    def holds(x: Value) -> bool:
        try:
            return sign_at(x) in wanted  # type: ignore[operator]
        except Undefined:
            return False

    ordered = sorted(ends)
    parts = [Interval(end, True, end, True) for end in ordered if holds(end)]
    borders = [-INFINITY, *ordered, INFINITY]
    for low, high in itertools.pairwise(borders):
        inside = high - 1 if low == -INFINITY else low + 1 if high == INFINITY else (low + high) / 2
        if high == INFINITY and low == -INFINITY:
            inside = inexact(Fraction(1, 3))
        if holds(inside):
            parts.append(Interval(low, False, high, False))
    return united(parts)
