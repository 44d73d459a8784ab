r"""A formula of LaTeX as a tree: tokens, then recursive descent. `spelling.spelled` comes first.

| operator | value | arguments |
|---|---|---|
| number | Fraction | |
| symbol | name | |
| add, multiply | | two or more |
| divide, power | | two |
| negate, factorial, double factorial, absolute, floor, ceiling, percent, degree | | one |
| plus-minus, minus-plus | | two |
| call | function's name | arguments |
| sum, product, integral | index | first, last, body |
| limit | variable | where, body |
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MOST_DEEP = 60
_TOKEN = re.compile(r"\s+|(\\\{|\\\}|\\[A-Za-z]+|\\.|\d+\.\d+|\d+\.(?!\d)|\.\d+|\d+|«[^»]*»|[^\s])")
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda",
    "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar", "pi", "infty", "Re", "Im", "nabla",
    "partial",
))  # fmt: skip
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "log", "ln",
    "lg", "exp", "gcd", "lcm", "max", "min", "det", "arg",
))  # fmt: skip
COMMANDS = frozenset((
    "frac", "sqrt", "binom", "lfloor", "lceil", "sum", "prod", "int", "lim", "mathbb", "overline", "dot", "angle",
    "triangle", "vec", "hat",
))  # fmt: skip
"""Those that begin a factor, beside the names above."""
UNKNOWN_FUNCTIONS = frozenset("fghFGHPQWT")
"""Letters that are functions where a parenthesis follows."""


class Unreadable(Exception):
    """Text that this parser doesn't take for a formula."""


@dataclass(frozen=True)
class Node:
    """One operation of a formula; see the module's table."""

    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | str | None = None
    decimals: int | None = None
    """Digits after the point, of a number that was written with one."""


def number(value: Fraction | int) -> Node:
    """A number as a formula."""
    return Node("number", value=Fraction(value))


def _braced_overline(digits: str, whole: str, before: str) -> Node:
    """0.12\\overline{345}: before = "12", digits = "345"."""
    if len(digits) + len(before) > 60:
        raise Unreadable("too many digits")
    value = Fraction(int(whole or 0)) + Fraction(int(before or 0), 10 ** len(before))
    value += Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(before))
    return number(value)


class Parser:
    """Recursive descent over tokens: operators, groups, numbers and names; LatexParser adds the commands."""

    def __init__(self, text: str):
        self.tokens = [m[1] for m in _TOKEN.finditer(text) if m[1]]
        self.at = self.depth = self.bars = 0

    def whole(self) -> Node:
        """The tree of all tokens. Raises Unreadable."""
        try:
            node = self.sum()
        except RecursionError:
            raise Unreadable("too deep") from None
        if self.peek() is not None:
            raise Unreadable(f"unexpected {self.peek()}")
        return node

    def peek(self, ahead: int = 0) -> str | None:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else None

    def take(self, wanted: str | None = None) -> str:
        token = self.peek()
        if token is None or (wanted is not None and token != wanted):
            raise Unreadable(f"expected {wanted or 'more'}, not {token or 'the end'}")
        self.at += 1
        return token

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MOST_DEEP:
            raise Unreadable("too deep")
        node = self.product()
        while (token := self.peek()) in ("+", "-", r"\pm", r"\mp"):
            self.take()
            right = self.product()
            if token in ("+", "-"):
                node = Node("add", (node, right if token == "+" else Node("negate", (right,))))
            else:
                node = Node("plus-minus" if token == r"\pm" else "minus-plus", (node, right))
        self.depth -= 1
        return node

    def product(self) -> Node:
        node = self.signed()
        while True:
            token = self.peek()
            if token in ("*", r"\cdot", r"\times"):
                self.take()
                node = Node("multiply", (node, self.signed()))
            elif token in ("/", r"\div", ":"):
                self.take()
                node = Node("divide", (node, self.signed()))
            elif token == r"\bmod":
                self.take()
                node = Node("call", (node, self.signed()), "mod")
            elif self.starts_factor(token):
                node = Node("multiply", (node, self.power()))
            else:
                return node

    def starts_factor(self, token: str | None) -> bool:
        """Whether an implicit product goes on."""
        if token is None or token in ("|", r"\|"):
            return token is not None and self.bars == 0
        if token[0] == "\\" and len(token) > 1:
            return token[1:] in GREEK | FUNCTIONS | COMMANDS
        if token[0].isdigit() or token[0] == ".":
            return not self.tokens[self.at - 1][-1].isdigit()
        return token[0].isalpha() or token in ("(", "[", "{", "«") or token[0] == "«"

    def signed(self) -> Node:
        token = self.peek()
        if token == "-":
            self.take()
            return Node("negate", (self.signed(),))
        if token == "+":
            self.take()
            return self.signed()
        if token in (r"\pm", r"\mp"):
            self.take()
            return Node("plus-minus" if token == r"\pm" else "minus-plus", (number(0), self.signed()))
        return self.power()

    def power(self) -> Node:
        node = self.postfix(self.atom())
        while self.peek() == "^":
            self.take()
            if self.peek() == "{" and self.peek(1) == r"\circ":
                self.take(), self.take(), self.take("}")
                node = Node("degree", (node,))
            elif self.peek() == r"\circ":
                self.take()
                node = Node("degree", (node,))
            else:
                node = Node("power", (node, self.signed_argument()))
            node = self.postfix(node)
        return node

    def signed_argument(self) -> Node:
        """An exponent: a group, one signed number, or one atom with its own exponent (2^3^2 is 2^(3^2))."""
        if self.peek() == "{":
            return self.argument()
        if self.peek() in ("-", "+"):
            negative = self.take() == "-"
            inner = self.signed_argument()
            return Node("negate", (inner,)) if negative else inner
        node = self.atom()
        if self.peek() == "^":
            self.take()
            return Node("power", (node, self.signed_argument()))
        return node

    def postfix(self, node: Node) -> Node:
        while (token := self.peek()) in ("!", "%"):
            self.take()
            if token == "!" and self.peek() == "!":
                self.take()
                node = Node("double factorial", (node,))
            else:
                node = Node("factorial" if token == "!" else "percent", (node,))
        return node

    def argument(self) -> Node:
        """{…}, or one token as LaTeX takes it: the first digit, letter or command."""
        token = self.peek()
        if token == "{":
            return self.enclosed("{", "}")
        if token is not None and token[0].isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return number(int(token[0]))
        return self.atom()

    def enclosed(self, opening: str, closing: str) -> Node:
        self.take(opening)
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.bars = bars
        self.take(closing)
        return node

    def atom(self) -> Node:
        token = self.peek()
        if token is None:
            raise Unreadable("nothing left")
        if token[0].isdigit() or token[0] == ".":
            return self.number()
        if token in ("(", "[", "{"):
            return self.enclosed(token, {"(": ")", "[": "]", "{": "}"}[token])
        if token in ("|", r"\|"):
            self.take()
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.take(token)
            return Node("absolute", (node,))
        if token[0] == "«":
            self.take()
            return Node("symbol", value=token)
        if token[0].isalpha():
            self.take()
            return self.name(token)
        if token[0] == "\\" and len(token) > 1:
            return self.command()
        raise Unreadable(f"unexpected {token}")

    def number(self) -> Node:
        text = self.take()
        whole, _, after = text.partition(".")
        if len(text) > 2000:
            raise Unreadable("too many digits")
        if self.peek() in (r"\overline", r"\dot") and ("." in text):
            digits = ""
            while self.peek() in (r"\overline", r"\dot"):
                self.take()
                digits += "".join(self.group())
            if not digits.isdecimal():
                raise Unreadable("no digits to repeat")
            return _braced_overline(digits, whole, after)
        if self.peek() in (r"\ldots",) and len(after) >= 3 and len(set(after[-3:])) == 1:
            self.take()
            return _braced_overline(after[-1], whole, after[:-1])
        value = Fraction(int(whole or 0)) + (Fraction(int(after), 10 ** len(after)) if after else 0)
        node = Node("number", value=value, decimals=len(after) if after else None)
        return self.mixed(node) if after == "" else node

    def mixed(self, whole: Node) -> Node:
        r"""3\frac{3}{4} and 3 3/4 are sums."""
        if self.peek() == r"\frac":
            start = self.at
            part = self.command()
            top, bottom = part.args
            if top.op == bottom.op == "number" and top.value < bottom.value:  # type: ignore[operator]
                return Node("add", (whole, part))
            self.at = start
        plain = [self.peek(i) or "" for i in range(3)]
        if plain[0].isdigit() and plain[1] == "/" and plain[2].isdigit() and int(plain[0]) < int(plain[2]):
            self.at += 3
            return Node("add", (whole, Node("divide", (number(int(plain[0])), number(int(plain[2]))))))
        return whole

    def group(self) -> list[str]:
        """The tokens of a braced group, or one token."""
        if self.peek() != "{":
            return [self.take()]
        self.take()
        tokens, depth = [], 1
        while depth:
            token = self.take()
            depth += (token == "{") - (token == "}")
            tokens.append(token)
        return tokens[:-1]

    def name(self, letter: str) -> Node:
        """A symbol with its index and primes, or an unknown function of what follows in parentheses."""
        name = letter
        while self.peek() in ("_", "'"):
            mark = self.take()
            name += mark + ("".join(self.group()) if mark == "_" else "")
        if letter in UNKNOWN_FUNCTIONS | {r"\phi", r"\psi", r"\Gamma"} and self.peek() == "(":
            return Node("call", self.several(), "?" + name)
        if name == r"\infty":
            return Node("symbol", value="infinity")
        return Node("symbol", value=name)

    def several(self) -> tuple[Node, ...]:
        """Arguments in parentheses, between commas."""
        self.take("(")
        nodes = [self.sum()]
        while self.peek() == ",":
            self.take()
            nodes.append(self.sum())
        self.take(")")
        return tuple(nodes)

    def command(self) -> Node:
        """A LaTeX command and its arguments."""
        raise Unreadable(f"unexpected {self.peek()}")
