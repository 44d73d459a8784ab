"""What numbers can't decide, by sympy: formulas without values at points, and the ends of an inequality's solutions."""

from fractions import Fraction
from typing import Any

from ngrpo.grading.second.evaluation import CONTEXT, Undefined, Value, evaluate
from ngrpo.grading.second.formulas import Node

_DIRECT = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp"}
_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "gcd": "gcd", "lcm": "lcm"}


def to_sympy(node: Node, **assumed: bool) -> Any:
    """A formula as a sympy expression; assumed: what is known of its variables. Raises Undefined for what has none."""
    import sympy

    if node.op == "number":
        assert isinstance(node.value, Fraction)
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if node.op == "symbol":
        known = {r"\pi": sympy.pi, "e": sympy.E, "i": sympy.I, "infinity": sympy.oo}
        return known.get(str(node.value)) or sympy.Symbol(str(node.value), **assumed)
    args = [to_sympy(arg, **assumed) for arg in node.args]
    if node.op == "call":
        return _function(str(node.value), args)
    if node.op in ("sum", "product"):
        index = sympy.Symbol(str(node.value), **assumed)
        return (sympy.Sum if node.op == "sum" else sympy.Product)(args[2], (index, args[0], args[1]))
    operations: dict[str, Any] = {
        "add": lambda a, b: a + b,
        "multiply": lambda a, b: a * b,
        "divide": lambda a, b: a / b,
        "power": lambda a, b: sympy.Pow(a, b, evaluate=not (a.is_number and b.is_number)),
        "negate": lambda a: -a,
        "factorial": lambda a: sympy.factorial(a, evaluate=not a.is_number),
        "absolute": sympy.Abs,
        "floor": sympy.floor,
        "ceiling": sympy.ceiling,
        "percent": lambda a: a / 100,
        "degree": lambda a: a * sympy.pi / 180,
    }
    if node.op not in operations:
        raise Undefined(node.op)
    return operations[node.op](*args)


def _function(name: str, args: list[Any]) -> Any:
    import sympy

    if name.startswith("?"):
        return sympy.Function(name[1:])(*args)
    if name == "log":
        return sympy.log(args[0], args[1] if len(args) > 1 else 10)
    if name in _DIRECT | set(_NAMES):
        return getattr(sympy, _NAMES.get(name, name))(*args)
    if name == "binomial":
        return sympy.binomial(*args)
    raise Undefined(name)


def same_by_algebra(a: Node, b: Node) -> bool:
    """Whether sympy simplifies the difference to zero. It may take long: workers have a limit."""
    import sympy

    try:
        difference = to_sympy(a, positive=True) - to_sympy(b, positive=True)
    except (Undefined, TypeError, ValueError, ZeroDivisionError, AttributeError):
        return False
    return bool(difference == 0 or sympy.simplify(difference) == 0)


def solution_ends(difference: Node, variable: str) -> list[Value] | None:
    """Where a function of one variable changes sign: its real zeros and poles; None where sympy can't say."""
    linear = _linear_root(difference, variable)
    if linear is not None:
        return [linear]
    import sympy

    try:
        x = sympy.Symbol(variable, real=True)
        expression = to_sympy(difference, real=True)
        zeros = sympy.solveset(expression, x, sympy.S.Reals)
        poles = sympy.singularities(expression, x, sympy.S.Reals)
    except (Undefined, NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    turns = []
    for ends in (zeros, poles):
        if not (isinstance(ends, sympy.FiniteSet) or ends is sympy.S.EmptySet):
            return None
        turns += [CONTEXT.mpf(str(sympy.N(end, 40))) for end in ends if end.is_real]
    return turns


def _linear_root(difference: Node, variable: str) -> Value | None:
    """The zero of a linear function."""
    try:
        at = [evaluate(difference, {variable: Fraction(x)}) for x in (0, 1, 2, 5, -7)]
    except Undefined:
        return None
    slope = at[1] - at[0] if type(at[0]) is type(at[1]) else None
    if slope is None or not all(isinstance(value, Fraction) for value in at):
        return _real_linear_root(at)
    if slope == 0 or at[2] - at[1] != slope or at[3] - at[2] != 3 * slope or at[0] - at[4] != 7 * slope:
        return None
    return CONTEXT.mpf((-at[0] / slope).numerator) / (-at[0] / slope).denominator


def _real_linear_root(at: list[Value]) -> Value | None:
    values = [CONTEXT.mpf(v.numerator) / v.denominator if isinstance(v, Fraction) else v for v in at]
    slope = values[1] - values[0]
    bends = (values[2] - values[1] - slope, values[3] - values[2] - 3 * slope, values[0] - values[4] - 7 * slope)
    straight = all(abs(bend) < 1e-25 for bend in bends)
    return -values[0] / slope if straight and abs(slope) > 1e-25 else None
