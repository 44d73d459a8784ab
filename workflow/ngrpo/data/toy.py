"""The toy task: sums and differences of two-digit numbers, worked column by column.

A trace of "47+38-16" is `<think>c158c196</think>\\boxed{69}`: for each further term a flag (was there a carry or a
borrow: c1, c0), the units digit and the tens digit of the partial result, then the result in a box. A sloppy trace
forgets some of the carries and borrows that it needs and follows the wrong flag from there on, so that a model
pre-trained on sloppy traces errs for one reason, which reinforcement learning can mend. Borrows may be forgotten more
often: such problems are nearly out of that model's reach.
"""

import random
import re

from ngrpo.data.generated import distinct
from ngrpo.study.sources import ToyProblems

_TERM = re.compile(r"[+-]?\d\d")


def draw(rng: random.Random, terms: tuple[int, int]) -> str:
    """A random problem of so many two-digit terms; every partial result lies in 0 … 99."""
    value = rng.randint(10, 99)
    text = f"{value:02d}"
    for _ in range(rng.randint(*terms) - 1):
        while True:
            sign, term = rng.choice((1, -1)), rng.randint(10, 99)
            if 0 <= value + sign * term <= 99:
                break
        value += sign * term
        text += f"{'+' if sign > 0 else '-'}{term:02d}"
    return text


def solve(problem: str) -> int:
    """The result of a problem."""
    return sum(int(term) for term in _TERM.findall(problem))


def trace(problem: str, rng: random.Random | None = None, forget: float = 0.0, forget_borrows: float = 0.0) -> str:
    """The worked solution. forget, forget_borrows: probability that a carry, or borrow, that is needed is left out
    (needs rng)."""
    first, *rest = _TERM.findall(problem)
    tens, units = int(first[0]), int(first[1])
    steps = []
    for term in rest:
        sign, ten, unit = (1 if term[0] == "+" else -1), int(term[1]), int(term[2])
        total = units + sign * unit
        flag, units = int(not 0 <= total <= 9), total % 10
        if flag and rng is not None and rng.random() < (forget if sign > 0 else forget_borrows):
            flag = 0
        tens = (tens + sign * (ten + flag)) % 10
        steps.append(f"c{flag}{units}{tens}")
    return f"<think>{''.join(steps)}</think>\\boxed{{{tens}{units}}}"


def make_problems(source: ToyProblems) -> list[dict[str, str]]:
    """Distinct problems with answers and correct solutions: rows of problem, answer, solution.

    Raises UserError where there aren't so many.
    """
    problems = distinct(source, lambda rng: draw(rng, source.terms))
    return [{"problem": p, "answer": str(solve(p)), "solution": trace(p)} for p in problems]
