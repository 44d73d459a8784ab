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

from ngrpo.errors import UserError, unknown_name
from ngrpo.grading.comparison import integer_verdict, number_verdict, string_verdict
from ngrpo.grading.conventions import PAPER, GradingLimits, GradingSettings
from ngrpo.grading.extract import (
    clean_gold,
    final_boxes,
    gold_choice,
    last_boxed,
    lenient_choice,
    line_number,
    strict_choice,
)
from ngrpo.grading.pool import Pair, Verdict, WorkerPool
from ngrpo.grading.second import answer_in, choice_in, quick_verdict, reference_choice, reference_text

KINDS = ("math", "choice", "number")
FINISH_REASONS = ("stop", "length")
REMEMBERED_PAIRS = 200_000
SHOWN_CHARS = 200
RESPONSE_FACTOR = 20
"""A whole response, where all its boxes count, may be so many times as long as an answer."""


@dataclass(frozen=True)
class Item:
    """One response to grade.

    answer: the reference; also: other accepted references. kind: one of KINDS. finish_reason: "stop", "length", None.
    """

    id: str
    response: str
    answer: str
    kind: str = "math"
    finish_reason: str | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grade:
    """One of ngrpo.grades.GRADES, the extracted answer (None where there is none) and, for grader_error, the reason."""

    grade: str
    extracted: str | None = None
    reason: str | None = None


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

    def grade(
        self,
        items: Sequence[Item],
        progress: Callable[[int, int], None] | None = None,
        settings: GradingSettings | None = None,
    ) -> list[Grade]:
        """One Grade an item, in order. progress(done, total) counts the distinct pairs that workers grade.

        settings: others than the grader's own, for this batch.
        """
        with self._lock:
            reading = _Reading(settings or self.settings, self.limits)
            asked = [reading.of(item) for item in items]
            pairs = dict.fromkeys(pair for _, each in asked for pair in each if isinstance(pair, Pair))
            todo = [pair for pair in pairs if pair not in self._known]
            report = None if progress is None else lambda done: progress(done, len(todo))
            fresh = self.pool.verdicts(todo, report) if todo else {}
            grades = [
                _best([g if isinstance(g, Grade) else _grade(answer, fresh.get(g) or self._known[g]) for g in each])
                for answer, each in asked
            ]
            if len(self._known) + len(fresh) > REMEMBERED_PAIRS:
                self._known.clear()
            self._known.update((pair, verdict) for pair, verdict in fresh.items() if verdict.lasting)
            return grades


class _Reading:
    """What is asked of an item: for each accepted reference a grade, where no worker is needed, or a pair."""

    def __init__(self, settings: GradingSettings, limits: GradingLimits):
        self.settings, self.limits = settings, limits

    def of(self, item: Item) -> tuple[str, list[Grade | Pair]]:
        """(the answer as it is shown, what is known or to compare for each reference)."""
        if item.kind == "choice":
            return "", [self._choice(item, reference) for reference in (item.answer, *item.also)]
        if item.kind == "number":
            return "", [self._number(item, reference) for reference in (item.answer, *item.also)]
        if item.kind != "math":
            raise unknown_name("kind", item.kind, KINDS, where=f"item '{item.id}'")
        answer, compared = self._answer(item.response)
        return answer or "", [self._math(item, ref, answer, compared) for ref in (item.answer, *item.also)]

    def _answer(self, response: str) -> tuple[str | None, str]:
        """(the answer as it is shown, what is compared)."""
        if self.settings.math == "second":
            answer = answer_in(response)
        elif self.settings.boxes == "all":
            answer = final_boxes(response)
            return answer, response
        else:
            answer = last_boxed(response)
        return answer, answer or ""

    def _math(self, item: Item, reference: str, answer: str | None, compared: str) -> Grade | Pair:
        own = self.settings.math == "second"
        gold = reference_text(reference) if own else clean_gold(reference)
        if not gold:
            raise UserError("the reference answer is empty", where=f"item '{item.id}'", do="leave the problem out")
        if answer is None:
            return _missing(item)
        if (too_long := self._too_long(gold, answer, compared)) is not None:
            return too_long
        if self.settings.math == "string":
            return _compared(string_verdict(gold, answer), answer)
        if self.settings.boxes == "all":
            return Pair(reference.strip(), compared, "math_verify_all_boxes", *self._adjusted())
        equal = quick_verdict(gold, answer) if own else integer_verdict(gold, answer)
        if equal is None or (self.settings.tolerance and not equal):
            return Pair(gold, answer, "second") if own else Pair(gold, answer, "math_verify", *self._adjusted())
        return _compared(equal, answer)

    def _adjusted(self) -> tuple[float, bool]:
        return self.settings.tolerance, self.settings.sets_equal_relations

    def _too_long(self, gold: str, answer: str, compared: str) -> Grade | None:
        limit = self.limits.chars * (RESPONSE_FACTOR if self.settings.boxes == "all" else 1)
        length = max(len(compared), len(gold))
        if length <= limit:
            return None
        reason = f"answer of {length} characters, over the limit of {limit}"
        return Grade("grader_error", answer[:SHOWN_CHARS] + "…", reason)

    def _number(self, item: Item, reference: str) -> Grade:
        gold, answer = line_number(str(reference)), line_number(item.response)
        if gold is None:
            raise UserError(f"the reference isn't a number: '{str(reference)[:40]}'", where=f"item '{item.id}'")
        return _missing(item) if answer is None else _compared(number_verdict(gold, answer), answer)

    def _choice(self, item: Item, reference: str) -> Grade:
        letters = self.settings.letters
        own = self.settings.choice == "second"
        gold = reference_choice(reference) if own else gold_choice(reference, letters)
        if gold is None:
            raise UserError(
                f"the reference of a choice must be one of {letters[0]} to {letters[-1]}, not '{str(reference)[:40]}'",
                where=f"item '{item.id}'",
                do=None if reference_choice(reference) is None else "take more letters in, as ABCDEFGHIJ",
            )
        if own:
            answer = choice_in(item.response)
        else:
            read = strict_choice if self.settings.choice == "strict" else lenient_choice
            answer = read(item.response, letters)
        return _missing(item) if answer is None else _compared(answer == gold, answer)


def _missing(item: Item) -> Grade:
    return Grade("truncated" if item.finish_reason == "length" else "no_answer")


def _compared(equal: bool, answer: str) -> Grade:
    return Grade("correct" if equal else "wrong", answer)


def _grade(answer: str, verdict: Verdict) -> Grade:
    if verdict.error is not None:
        return Grade("grader_error", answer, verdict.error)
    return _compared(verdict.equal, answer)


def _best(grades: list[Grade]) -> Grade:
    """Of the grades against each accepted reference: correct, if one is; else the first error, else the first."""
    for wanted in ("correct", "grader_error"):
        for grade in grades:
            if grade.grade == wanted:
                return grade
    return grades[0]


def grade_answers(
    items: Sequence[Item],
    workers: int | None = None,
    limits: GradingLimits | None = None,
    settings: GradingSettings = PAPER,
) -> list[Grade]:
    """One Grade an item, in order, with workers that end with the call (paper §4.1)."""
    with Grader(workers, limits, settings) as grader:
        return grader.grade(items)
