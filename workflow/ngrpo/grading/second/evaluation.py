"""A formula's value: an exact rational number where it is one, else a number to forty digits.

Variables are given values: positive ones first (n > 0 is understood in 1/√n), then of both signs; indices of sums and
exponents of negative bases get whole numbers. An unknown function f(x) has a value made of its name and arguments.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from mpmath import MPContext

from ngrpo.grading.second.formulas import Node

CONTEXT: Any = MPContext()
CONTEXT.dps = 40
MOST_BITS = 200_000
MOST_TERMS = 20_000
LARGEST_EXPONENT = 10**12
BINDING = ("sum", "product", "integral", "limit")
"""Operators with a variable of their own."""
SAME = CONTEXT.mpf(10) ** -25
NOTHING = CONTEXT.mpf(10) ** -28
"""Differences that rounding at forty digits leaves."""

Value = Any
"""Fraction, or a real or complex number of CONTEXT."""
CONSTANTS = {r"\pi": +CONTEXT.pi, "e": +CONTEXT.e, "i": CONTEXT.j, "infinity": CONTEXT.inf}


class Undefined(Exception):
    """A formula without a value: division by zero, a domain, a size that nobody needs."""


def symbols_of(node: Node) -> frozenset[str]:
    """The variables of a formula."""
    if node.op == "symbol":
        return frozenset() if node.value in CONSTANTS else frozenset({str(node.value)})
    inner = frozenset().union(*(symbols_of(arg) for arg in node.args)) if node.args else frozenset()
    return inner - {str(node.value)} if node.op in BINDING else inner


def whole_symbols(node: Node) -> frozenset[str]:
    """The variables that stand where only whole numbers mean something: ends of sums, exponents of negative numbers."""
    here: frozenset[str] = frozenset()
    if node.op in ("sum", "product"):
        here = symbols_of(node.args[0]) | symbols_of(node.args[1])
    elif node.op == "call" and node.value in ("binomial", "mod", "gcd", "lcm"):
        here = symbols_of(node)
    elif node.op == "factorial" or (node.op == "power" and node.args[0].op == "negate"):
        here = symbols_of(node.args[-1])
    return here.union(*(whole_symbols(arg) for arg in node.args))


def points(names: frozenset[str], whole: frozenset[str], count: int = 6) -> Iterator[dict[str, Fraction]]:
    """Values for variables, the same ones for the same names; the first four of them positive."""
    for row in range(count):
        values = {}
        for place, name in enumerate(sorted(names)):
            seed = int.from_bytes(hashlib.sha256(f"{row} {place} {name}".encode()).digest()[:6])
            value = Fraction(2 + seed % 7) if name in whole else Fraction(3 + seed % 1009, 401)
            values[name] = -value if row >= 4 and (seed >> 20) % 2 + (row == 4) and name not in whole else value
        yield values


def evaluate(node: Node, at: Mapping[str, Value] = {}) -> Value:
    """The formula's value. Raises Undefined."""
    try:
        return _evaluate(node, at)
    except (ZeroDivisionError, OverflowError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise Undefined(str(error)) from None


def _evaluate(node: Node, at: Mapping[str, Value]) -> Value:
    if node.op == "number":
        return node.value
    if node.op == "symbol":
        return _symbol(str(node.value), at)
    if node.op in ("sum", "product"):
        return _series(node, at)
    if node.op in BINDING:
        return _analytic(node, at)
    args = [_evaluate(arg, at) for arg in node.args]
    if node.op == "call":
        return _call(str(node.value), args)
    return OPERATIONS[node.op](*args)


def _symbol(name: str, at: Mapping[str, Value]) -> Value:
    if name in at:
        return at[name]
    if name in CONSTANTS:
        return CONSTANTS[name]
    raise Undefined(f"{name} has no value")


def exact(value: Value) -> bool:
    """Whether a value is a rational number, without rounding."""
    return isinstance(value, Fraction)


def inexact(value: Value) -> Value:
    """A value as a number of CONTEXT."""
    return CONTEXT.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _both(a: Value, b: Value) -> tuple[Value, Value]:
    return (a, b) if exact(a) and exact(b) else (inexact(a), inexact(b))


def _add(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    return a + b


def _multiply(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    return a * b


def _divide(a: Value, b: Value) -> Value:
    a, b = _both(a, b)
    if b == 0:
        raise Undefined("division by zero")
    return a / b


def _power(base: Value, exponent: Value) -> Value:
    if exact(exponent) and exponent.denominator == 1 and exact(base):
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if size * abs(int(exponent)) <= MOST_BITS:
            if base == 0 and exponent < 0:
                raise Undefined("division by zero")
            return base ** int(exponent)
    rational = exact(base) and exact(exponent)
    small = rational and base > 0 and exponent.denominator <= 12 and abs(exponent.numerator) <= 64
    if small and (root := _exact_root(base, exponent.denominator)) is not None:
        return root**exponent.numerator
    if exact(base) and exact(exponent) and base < 0 and exponent.denominator % 2 and exponent.denominator > 1:
        positive = _power(-base, exponent)  # the real root, as \\sqrt[3]{-8}
        return -positive if exponent.numerator % 2 else positive
    a, b = inexact(base), inexact(exponent)
    if abs(b) > LARGEST_EXPONENT or abs(CONTEXT.re(b) * CONTEXT.log(abs(a) if a else 1)) > LARGEST_EXPONENT:
        raise Undefined("too large")
    if a == 0 and CONTEXT.re(b) < 0:
        raise Undefined("division by zero")
    return a**b


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The rational root, if it is one and small."""
    if max(value.numerator, value.denominator).bit_length() > 2000:
        return None
    ends = []
    for part in (value.numerator, value.denominator):
        near = math.isqrt(part) if degree == 2 else round(float(CONTEXT.root(part, degree)))
        if near**degree != part:
            return None
        ends.append(near)
    return Fraction(ends[0], ends[1])


def _factorial(n: Value) -> Value:
    if exact(n) and n.denominator == 1 and 0 <= n <= 3000:
        return Fraction(math.factorial(int(n)))
    if abs(inexact(n)) > LARGEST_EXPONENT:
        raise Undefined("too large")
    return CONTEXT.gamma(inexact(n) + 1)


def _double_factorial(n: Value) -> Value:
    if not (exact(n) and n.denominator == 1 and 0 <= n <= 3000):
        raise Undefined("a double factorial of no small whole number")
    return Fraction(math.prod(range(int(n), 0, -2)))


def _absolute(a: Value) -> Value:
    return abs(a)


def _floor(a: Value) -> Value:
    return Fraction(math.floor(a)) if exact(a) else CONTEXT.floor(CONTEXT.re(a))


def _ceiling(a: Value) -> Value:
    return Fraction(math.ceil(a)) if exact(a) else CONTEXT.ceil(CONTEXT.re(a))


def _negate(a: Value) -> Value:
    return -a


def _percent(a: Value) -> Value:
    return _divide(a, Fraction(100))


def _degree(a: Value) -> Value:
    return inexact(a) * CONTEXT.pi / 180


OPERATIONS: dict[str, Any] = {
    "add": _add, "multiply": _multiply, "divide": _divide, "power": _power, "negate": _negate, "factorial": _factorial,
    "double factorial": _double_factorial, "absolute": _absolute, "floor": _floor, "ceiling": _ceiling,
    "percent": _percent, "degree": _degree,
}  # fmt: skip
ELEMENTARY = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "ln", "exp": "exp", "lg": "log10",
    "arg": "arg",
}  # fmt: skip


def _call(name: str, args: list[Value]) -> Value:
    if name.startswith("?"):
        return _unknown(name, args)
    if name == "log":
        base = inexact(args[1]) if len(args) > 1 else CONTEXT.mpf(10)
        return _near_whole(CONTEXT.log(inexact(args[0])) / CONTEXT.log(base))
    if name in ELEMENTARY and len(args) == 1:
        return getattr(CONTEXT, ELEMENTARY[name])(inexact(args[0]))
    if name == "binomial":
        n, k = args
        if exact(n) and exact(k) and n.denominator == k.denominator == 1 and 0 <= k <= 3000 and 0 <= n <= 10**6:
            return Fraction(math.comb(int(n), int(k)))
        return CONTEXT.binomial(inexact(n), inexact(k))
    if name in ("gcd", "lcm") and all(exact(a) and a.denominator == 1 for a in args):
        return Fraction(getattr(math, name)(*(int(a) for a in args)))
    if name in ("max", "min"):
        return (max if name == "max" else min)(args)
    if name == "mod" and exact(args[0]) and exact(args[1]):
        return args[0] % args[1]
    raise Undefined(f"{name} of {len(args)} arguments")


def _near_whole(value: Value) -> Value:
    """A logarithm that is a whole number, as that number."""
    whole = CONTEXT.nint(CONTEXT.re(value))
    return Fraction(int(whole)) if abs(value - whole) < NOTHING and abs(whole) < 10**6 else value


def _unknown(name: str, args: list[Value]) -> Value:
    text = name + ";".join(CONTEXT.nstr(inexact(arg), 20) for arg in args)
    return Fraction(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]), 2**40)


def _analytic(node: Node, at: Mapping[str, Value]) -> Value:
    """An integral between two ends, or a limit, to forty digits."""
    *ends, body = node.args

    def value(x: Value) -> Value:
        return inexact(_evaluate(body, {**at, str(node.value): x}))

    places = [inexact(_evaluate(end, at)) for end in ends]
    return _near_whole(CONTEXT.quad(value, places) if node.op == "integral" else CONTEXT.limit(value, places[0]))


def _series(node: Node, at: Mapping[str, Value]) -> Value:
    first, last = _evaluate(node.args[0], at), _evaluate(node.args[1], at)
    index, body = str(node.value), node.args[2]
    operation, total = (_add, Fraction(0)) if node.op == "sum" else (_multiply, Fraction(1))
    if not exact(last) and last == CONTEXT.inf and node.op == "sum":
        return CONTEXT.nsum(lambda n: inexact(_evaluate(body, {**at, index: Fraction(int(n))})), [int(first), last])
    if not (exact(first) and exact(last) and first.denominator == last.denominator == 1):
        raise Undefined("a sum between fractions")
    if last - first > MOST_TERMS:
        raise Undefined("too many terms")
    for n in itertools.count(int(first)):
        if n > last:
            return total
        total = operation(total, _evaluate(body, {**at, index: Fraction(n)}))


def close(a: Value, b: Value) -> bool:
    """Whether two values are equal: exactly, where both are exact, else to 25 digits."""
    if exact(a) and exact(b):
        return bool(a == b)
    a, b = inexact(a), inexact(b)
    if CONTEXT.isinf(a) or CONTEXT.isinf(b):
        return bool(a == b)
    return bool(abs(a - b) <= max(SAME * min(abs(a), abs(b)), NOTHING))
