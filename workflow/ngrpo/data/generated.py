"""Generated problems: distinct ones, split by a hash of their text.

Training, validation and benchmark problems are disjoint by construction, whatever the seeds.
"""

import random
import zlib
from collections.abc import Callable

from ngrpo.errors import UserError
from ngrpo.study.sources import ArithmeticProblems, ToyProblems

PATIENCE = 100_000  # draws in a row without a new problem, after which there are no more
_LARGEST_FACTOR = 12


def is_held_out(problem: str) -> bool:
    """Whether a problem is in the held-out eighth."""
    return zlib.crc32(problem.encode()) % 8 == 0


def is_validation(problem: str) -> bool:
    """Which half of the held-out problems: the one that chooses checkpoints (True) or the benchmark's."""
    return zlib.crc32(problem.encode()) // 8 % 2 == 0


def distinct(
    source: ToyProblems | ArithmeticProblems,
    draw: Callable[[random.Random], str],
    allowed: Callable[[str], bool] = lambda problem: True,
) -> list[str]:
    """So many distinct problems of the source's part, as `draw` makes them. Raises UserError where there are fewer."""
    rng = random.Random(source.seed)
    problems: dict[str, None] = {}
    unlucky = 0
    while unlucky < PATIENCE:
        problem, before = draw(rng), len(problems)
        held_out = is_held_out(problem)
        in_part = held_out == source.held_out and (not held_out or is_validation(problem) == source.validation)
        if in_part and allowed(problem):
            problems.setdefault(problem)
        if len(problems) == source.count:
            return list(problems)
        unlucky = unlucky + 1 if len(problems) == before else 0
    raise UserError(
        f"there aren't {source.count} such problems ({len(problems)} were found)",
        where="dataset source: count",
        do="ask for fewer, or allow more terms or larger numbers",
    )


def arithmetic(source: ArithmeticProblems, shown: str = "") -> list[dict[str, str]]:
    """Sums and products with their answers: rows of problem and answer. shown: examples, without whose problems."""

    def draw(rng: random.Random) -> str:
        operation = rng.choice(source.operations)
        low, high = (1, source.largest) if operation == "+" else (2, min(source.largest, _LARGEST_FACTOR))
        return f"{rng.randint(low, high)} {operation} {rng.randint(low, high)}"

    given = {line.split("=")[0].strip() for line in shown.splitlines()}
    return [{"problem": p, "answer": str(_value(p))} for p in distinct(source, draw, lambda p: p not in given)]


def _value(problem: str) -> int:
    a, operation, b = problem.split()
    return int(a) + int(b) if operation == "+" else int(a) * int(b)
