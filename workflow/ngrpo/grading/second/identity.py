"""Whether two formulas are equal: exactly, by numbers, then by sympy; with units, decimals and added constants."""

from fractions import Fraction

from ngrpo.grading.second.answers import Formula
from ngrpo.grading.second.evaluation import (
    CONTEXT,
    Undefined,
    Value,
    close,
    evaluate,
    exact,
    inexact,
    points,
    symbols_of,
    whole_symbols,
)
from ngrpo.grading.second.formulas import Node
from ngrpo.grading.second.symbolic import same_by_algebra
from ngrpo.grading.second.units import in_common_unit

ENOUGH_POINTS = 3
SIGNIFICANT = 6
LARGE = 10**25
DIGITS_OF_PROGRAMS, NEXT_NUMBER = (16, 17), Fraction(1, 2**52)
"""Significant digits of 0.1 + 0.2 as a program writes it, and how far (a share) numbers of programs are apart."""
ADDED_CONSTANTS = frozenset(("C", "c", "K", "k", "C_1", "c_1", "C_0", "C_2"))


def constant(node: Node) -> bool:
    """Whether a formula has no variables."""
    return not symbols_of(node)


def same_formula(gold: Formula, answer: Formula) -> bool:
    """Whether two quantities are equal. A unit may be missing on one side; two units must measure the same."""
    a, b = gold.unit, answer.unit
    if a is not None and b is not None and a != b:
        if a[0] != b[0]:
            return False
        try:
            values = [in_common_unit(evaluate(f.node), u) for f, u in ((gold, a), (answer, b))]
        except Undefined:
            return False
        return close(values[0], values[1])
    if same_node(gold.node, answer.node):
        return True
    unit, with_unit, other = (a, gold, answer) if a is not None else (b, answer, gold)
    if unit is None or unit == (a and b) or unit[0] not in ("percent", "angle"):
        return False
    try:
        return close(in_common_unit(evaluate(with_unit.node), unit), evaluate(other.node))
    except Undefined:
        return False


def same_node(a: Node, b: Node) -> bool:
    """Whether two formulas are equal wherever both have a value."""
    if a == b:
        return True
    names = symbols_of(a) | symbols_of(b)
    if names:
        verdict = _same_at_points(a, b, names)
        if verdict is not True and names & ADDED_CONSTANTS:
            return _same_up_to_a_constant(a, b)
    else:
        verdict = _same_numbers(a, b)
    if verdict is not None:
        return verdict or _with_natural_logarithms(a, b, names)
    return same_by_algebra(a, b)


def _same_numbers(a: Node, b: Node) -> bool | None:
    """By value; None where a value can't be had."""
    try:
        x, y = evaluate(a), evaluate(b)
    except Undefined:
        return None
    if not (exact(x) and exact(y)) and abs(inexact(x)) > LARGE and abs(inexact(y)) > LARGE and close(x, y):
        return None  # forty digits don't show what is added to so large a number
    return close(x, y) or _rounded(a, x, y) or _rounded(b, y, x)


def _rounded(node: Node, decimal: Value, value: Value) -> bool:
    """Whether a decimal of at least six significant digits is another value, rounded or cut off there."""
    while node.op == "negate":
        node = node.args[0]
    if node.decimals is None or not exact(decimal) or CONTEXT.im(inexact(value)) or CONTEXT.isinf(inexact(value)):
        return False
    digits = str(abs(decimal.numerator * 10**node.decimals // decimal.denominator)).lstrip("0")
    if len(digits) < SIGNIFICANT:
        return False
    if len(digits) in DIGITS_OF_PROGRAMS and exact(value):
        return bool(abs(value - decimal) <= abs(decimal) * NEXT_NUMBER)
    if exact(value) and (10**node.decimals * value).denominator == 1:
        return False  # as many digits would have said it exactly
    return bool(abs(inexact(value) - inexact(decimal)) < CONTEXT.mpf(10) ** -node.decimals)


def _values(a: Node, b: Node, at: dict[str, Fraction]) -> tuple[Value, Value] | None:
    try:
        return evaluate(a, at), evaluate(b, at)
    except Undefined:
        return None


def _real(value: Value) -> bool:
    return abs(CONTEXT.im(inexact(value))) < 1e-20


def _same_at_points(a: Node, b: Node, names: frozenset[str]) -> bool | None:
    """By values at points; None where too few points have values on both sides."""
    seen = 0
    for at in points(names, whole_symbols(a) | whole_symbols(b)):
        values = _values(a, b, at)
        if values is None:
            continue
        negative = any(value < 0 for value in at.values())
        if negative and not (_real(values[0]) and _real(values[1])):
            continue  # outside the reals: branches of roots and logarithms differ
        if not close(*values):
            return False
        seen += 1
    return True if seen >= ENOUGH_POINTS else None


def opposite_sides(a: tuple[Node, Node], b: tuple[Node, Node]) -> int | None:
    """Whether left - right of one relation is a multiple of the other's: its sign, 1 or -1; None where it isn't."""
    f, g = (Node("add", (left, Node("negate", (right,)))) for left, right in (a, b))
    names, ratio, seen = symbols_of(f) | symbols_of(g), None, 0
    if not names or symbols_of(f) != symbols_of(g):
        return None
    for at in points(names, whole_symbols(f) | whole_symbols(g)):
        values = _values(f, g, at)
        if values is None or not all(_real(value) for value in values):
            continue
        x, y = values
        if close(x, Fraction(0)) or close(y, Fraction(0)):
            if not (close(x, Fraction(0)) and close(y, Fraction(0))):
                return None
            continue
        here = inexact(x) / inexact(y)
        if ratio is not None and not close(here, ratio):
            return None
        ratio, seen = here, seen + 1
    if seen < ENOUGH_POINTS or ratio is None:
        return None
    return 1 if CONTEXT.re(ratio) > 0 else -1


def _terms(node: Node) -> list[Node]:
    """The terms of a sum, at its top."""
    return [term for arg in node.args for term in _terms(arg)] if node.op == "add" else [node]


def _without_constant(node: Node) -> Node | None:
    """A sum without its added constant; None where it has none, or uses it elsewhere."""
    terms = _terms(node)
    rest_of_terms = [t for t in terms if not (t.op == "symbol" and t.value in ADDED_CONSTANTS)]
    if len(rest_of_terms) != len(terms) - 1 or not rest_of_terms:
        return None
    rest = rest_of_terms[0]
    for term in rest_of_terms[1:]:
        rest = Node("add", (rest, term))
    return None if symbols_of(rest) & (symbols_of(node) - symbols_of(rest)) else rest


def _same_up_to_a_constant(a: Node, b: Node) -> bool:
    """Antiderivatives: both have an added constant, and the rests differ by a constant."""
    f, g = _without_constant(a), _without_constant(b)
    if f is None or g is None:
        return False
    difference, first = Node("add", (f, Node("negate", (g,)))), None
    for at in points(symbols_of(difference), frozenset(), count=4):
        try:
            here = evaluate(difference, at)
        except Undefined:
            return False
        if first is not None and not close(here, first) and abs(inexact(here) - inexact(first)) > 1e-20:
            return False
        first = here
    return first is not None


def _with_natural_logarithms(a: Node, b: Node, names: frozenset[str]) -> bool:
    """log without a base may be the natural one: then on both sides."""
    natural = [_natural(a), _natural(b)]
    if natural == [a, b]:
        return False
    if names:
        return _same_at_points(natural[0], natural[1], names) is True
    return _same_numbers(natural[0], natural[1]) is True


def _natural(node: Node) -> Node:
    args = tuple(_natural(arg) for arg in node.args)
    ln = node.op == "call" and node.value == "log" and len(args) == 1
    return Node(node.op, args, "ln" if ln else node.value, node.decimals)
