"""Grades of responses: extract, compare, and say which of five things happened (paper §4.1; docs/method.md).

| grade | means |
|---|---|
| correct | the answer equals the reference |
| wrong | it doesn't |
| no_answer | the response ended by itself and holds no answer in the asked form |
| truncated | the response was cut off (finish_reason "length") before it held an answer |
| grader_error | nobody knows: time, memory or size over the limit, an exception, a dead worker; `reason` says which |

A response that was cut off after its answer is graded like any other. Only `correct` scores.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ngrpo.errors import UserError, unknown_name
from ngrpo.grading.comparison import integer_verdict, string_verdict
from ngrpo.grading.extract import clean_gold, gold_choice, last_boxed, lenient_choice, strict_choice
from ngrpo.grading.pool import Pair, Verdict, WorkerPool

KINDS = ("math", "choice")
FINISH_REASONS = ("stop", "length")
REMEMBERED_PAIRS = 200_000
SHOWN_CHARS = 200


@dataclass(frozen=True)
class Item:
    """One response to grade. answer: the reference. kind: "math" or "choice". finish_reason: "stop", "length", None."""

    id: str
    response: str
    answer: str
    kind: str = "math"
    finish_reason: str | None = None


@dataclass(frozen=True)
class Grade:
    """One of ngrpo.grades.GRADES, the extracted answer (None where there is none) and, for grader_error, the reason."""

    grade: str
    extracted: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class GradingLimits:
    """What one answer may cost.

    seconds: of processor time (and four times as many on the clock). memory_mb: on top of what its worker has (MB).
    chars: the answer's length.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    chars: int = 10_000

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_mb <= 0 or self.chars <= 0:
            raise UserError(f"grading limits must be positive: {self}", where="grading limits")


@dataclass(frozen=True)
class GradingSettings:
    """How answers are compared. math: Math-Verify or equal normalized strings. choice: strict or lenient reading."""

    math: Literal["math_verify", "string"] = "math_verify"
    choice: Literal["strict", "lenient"] = "strict"

    def __post_init__(self) -> None:
        if self.math not in ("math_verify", "string"):
            raise unknown_name("way to compare mathematics", self.math, ["math_verify", "string"])
        if self.choice not in ("strict", "lenient"):
            raise unknown_name("way to read a choice", self.choice, ["strict", "lenient"])


PAPER = GradingSettings()
SETTINGS = {
    "paper": PAPER,
    "math-verify": PAPER,
    "release-math500": GradingSettings(math="string"),
    "release-gpqa": GradingSettings(choice="lenient"),
}


class Grader:
    """Grades batch after batch with workers that stay alive; they start when the first pair needs them.

    workers: how many; None: one for each core that this process may use; grades don't depend on it.
    Use as a context manager, or call close(). Equal (reference, answer) pairs are graded once in a grader's life.
    Safe to call from several threads (one batch at a time). Raises UserError for an unknown kind or a bad reference.
    """

    def __init__(
        self, workers: int | None = None, limits: GradingLimits | None = None, settings: GradingSettings = PAPER
    ):
        workers = len(os.sched_getaffinity(0)) if workers is None else workers
        if workers < 1:
            raise UserError(f"grading needs at least one worker, not {workers}", where="workers")
        self.limits, self.settings = limits or GradingLimits(), settings
        self.pool = WorkerPool(workers, self.limits.seconds, self.limits.memory_mb)
        self._known: dict[Pair, Verdict] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def grade(self, items: Sequence[Item], progress: Callable[[int, int], None] | None = None) -> list[Grade]:
        """One Grade an item, in order. progress(done, total) counts the distinct pairs that workers grade."""
        with self._lock:
            answers = [self._answer(item) for item in items]
            todo = {pair for pair in answers if isinstance(pair, tuple) and pair not in self._known}
            pairs = [pair for pair in dict.fromkeys(a for a in answers if isinstance(a, tuple)) if pair in todo]
            report = None if progress is None else lambda done: progress(done, len(pairs))
            fresh = self.pool.verdicts(pairs, report) if pairs else {}
            grades = [
                answer if isinstance(answer, Grade) else _grade(answer[1], fresh.get(answer) or self._known[answer])
                for answer in answers
            ]
            if len(self._known) + len(fresh) > REMEMBERED_PAIRS:
                self._known.clear()
            self._known.update((pair, verdict) for pair, verdict in fresh.items() if verdict.lasting)
            return grades

    def _answer(self, item: Item) -> Grade | Pair:
        """The grade, where no worker is needed; else the pair to compare."""
        if item.kind == "choice":
            return self._choice_grade(item)
        if item.kind != "math":
            raise unknown_name("kind", item.kind, KINDS, where=f"item '{item.id}'")
        gold = clean_gold(item.answer)
        if not gold:
            raise UserError("the reference answer is empty", where=f"item '{item.id}'", do="leave the problem out")
        answer = last_boxed(item.response)
        if answer is None:
            return _missing(item)
        if len(answer) > self.limits.chars or len(gold) > self.limits.chars:
            length = max(len(answer), len(gold))
            reason = f"answer of {length} characters, over the limit of {self.limits.chars}"
            return Grade("grader_error", answer[:SHOWN_CHARS] + "…", reason)
        if self.settings.math == "string":
            return _compared(string_verdict(gold, answer), answer)
        equal = integer_verdict(gold, answer)
        return (gold, answer) if equal is None else _compared(equal, answer)

    def _choice_grade(self, item: Item) -> Grade:
        gold = gold_choice(item.answer)
        if gold is None:
            shown = str(item.answer)[:40]
            raise UserError(
                f"the reference of a choice must be one of A to D, not '{shown}'", where=f"item '{item.id}'"
            )
        read = strict_choice if self.settings.choice == "strict" else lenient_choice
        answer = read(item.response)
        return _missing(item) if answer is None else _compared(answer == gold, answer)


def _missing(item: Item) -> Grade:
    return Grade("truncated" if item.finish_reason == "length" else "no_answer")


def _compared(equal: bool, answer: str) -> Grade:
    return Grade("correct" if equal else "wrong", answer)


def _grade(answer: str, verdict: Verdict) -> Grade:
    if verdict.error is not None:
        return Grade("grader_error", answer, verdict.error)
    return _compared(verdict.equal, answer)


def grade_answers(
    items: Sequence[Item],
    workers: int | None = None,
    limits: GradingLimits | None = None,
    settings: GradingSettings = PAPER,
) -> list[Grade]:
    """One Grade an item, in order, with workers that end with the call (paper §4.1)."""
    with Grader(workers, limits, settings) as grader:
        return grader.grade(items)
