r"""LaTeX commands of formulas: \frac, \sqrt, functions, \binom, \sum, floors and the rest."""

from ngrpo.grading.second.formulas import FUNCTIONS, GREEK, Node, Parser, Unreadable, number

MOST_CHARS, MOST_TOKENS = 4000, 400
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


def parse_formula(text: str) -> Node:
    """The tree of a whole text in one spelling. Raises Unreadable."""
    parser = LatexParser(text[: MOST_CHARS + 1])
    if len(text) > MOST_CHARS or len(parser.tokens) > MOST_TOKENS:
        raise Unreadable("too long")
    return parser.whole()


class LatexParser(Parser):
    """The parser with LaTeX's commands."""

    def command(self) -> Node:
        """A command with its arguments, as an atom."""
        command = self.take()
        name = command[1:]
        if name == "frac":
            return Node("divide", (self.argument(), self.argument()))
        if name == "sqrt":
            return self._root()
        if name == "binom":
            return Node("call", (self.argument(), self.argument()), "binomial")
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.take(r"\rfloor" if name == "lfloor" else r"\rceil")
            return Node("floor" if name == "lfloor" else "ceiling", (inner,))
        if name in ("sum", "prod"):
            return self._series("sum" if name == "sum" else "product")
        if name in ("int", "lim"):
            return self._integral() if name == "int" else self._limit()
        if name in FUNCTIONS:
            return self._function(name)
        if name in GREEK:
            return self.name(command)
        if name in ("mathbb", "angle", "triangle", "vec", "hat", "overline"):
            return Node("symbol", value=name + "".join(self.group()))
        raise Unreadable(f"unexpected {command}")

    def _root(self) -> Node:
        degree = None
        if self.peek() == "[":
            degree = self.enclosed("[", "]")
        inner = self.argument()
        half = Node("divide", (number(1), degree or number(2)))
        return Node("power", (inner, half), "root")

    def _series(self, op: str) -> Node:
        r"""\sum_{k=1}^{10} body; the body goes on to the next plus or minus."""
        index, first, last = "", None, None
        for _ in range(2):
            if self.peek() == "_":
                self.take()
                tokens = self.group()
                if len(tokens) < 3 or tokens[1] != "=":
                    raise Unreadable("a sum without first index")
                index, first = tokens[0], LatexParser(" ".join(tokens[2:])).whole()
            elif self.peek() == "^":
                self.take()
                last = self.argument()
        if first is None or last is None:
            raise Unreadable("a sum without ends")
        return Node(op, (first, last, self.product()), index)

    def _integral(self) -> Node:
        r"""\int_a^b body dx."""
        ends: dict[str, Node] = {}
        for _ in range(2):
            if (mark := self.peek()) in ("_", "^"):
                self.take()
                ends[str(mark)] = LatexParser(" ".join(self.group())).whole()
        at = next((i for i in range(self.at, len(self.tokens) - 1) if self.tokens[i] == "d"), None)
        if len(ends) < 2 or at is None or not self.tokens[at + 1].isalpha():
            raise Unreadable("no integral between two ends")
        body, variable = " ".join(self.tokens[self.at : at]) or "1", self.tokens[at + 1]
        self.at = at + 2
        return Node("integral", (ends["_"], ends["^"], LatexParser(body).whole()), variable)

    def _limit(self) -> Node:
        r"""\lim_{x \to a} body."""
        self.take("_")
        tokens = self.group()
        if len(tokens) < 3 or tokens[1] != r"\to":
            raise Unreadable("a limit of nothing")
        return Node("limit", (LatexParser(" ".join(tokens[2:])).whole(), self.product()), tokens[0])

    def _function(self, name: str) -> Node:
        r"""\sin^2 x, \log_2 8, \gcd(a, b), \sin 2x: without parentheses the argument is the product that follows."""
        base = power = None
        for _ in range(2):
            if self.peek() == "_" and name in ("log", "max", "min"):
                self.take()
                base = self.argument()
            elif self.peek() == "^":
                self.take()
                power = self.signed_argument()
        inverse = power is not None and power.op == "negate" and power.args[0].value == 1 and name in _INVERSE
        if inverse:
            name, power = _INVERSE[name], None
        if self.peek() == "(":
            args = self.several()
        elif self.peek() == "{" or self.peek() in FUNCTIONS:
            args = (self.argument(),)
        else:
            args = (self._bare_argument(),)
        if base is not None and name == "log":
            args = (*args, base)
        node = Node("call", args, name)
        return node if power is None else Node("power", (node, power))

    def _bare_argument(self) -> Node:
        negative = self.peek() == "-"
        if negative:
            self.take()
        node = self.power()
        while (token := self.peek()) is not None and token[1:] not in FUNCTIONS and self.starts_factor(token):
            node = Node("multiply", (node, self.power()))
        if self.peek() == "/" and (self.peek(1) or "x")[0].isdigit():
            self.take()
            node = Node("divide", (node, self.power()))
        return Node("negate", (node,)) if negative else node
