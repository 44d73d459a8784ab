"""The reward: 1 for a correct answer, else 0, by evaluation's grader; verl's `batch` reward manager calls it.

A grader error scores 0 like any answer that isn't known to be right, and is counted on its own in the step's metrics.
"""

import atexit
import functools

from ngrpo.grading import Grader, Item


@functools.cache
def _grader() -> Grader:
    """One grader a process; its workers start with the first batch and end with the process."""
    grader = Grader(workers=2)
    atexit.register(grader.close)
    return grader


def compute_scores(data_sources, solution_strs, ground_truths, extra_infos, **_) -> list[dict[str, float]]:
    """Scores of a batch of responses, and which grade each got."""
    items = [
        Item(str(number), text, answer, info["kind"])
        for number, (text, answer, info) in enumerate(zip(solution_strs, ground_truths, extra_infos, strict=True))
    ]
    grades = _grader().grade(items)
    return [
        {
            "score": float(grade.grade == "correct"),
            "no_answer": float(grade.grade == "no_answer"),
            "grader_error": float(grade.grade == "grader_error"),
        }
        for grade in grades
    ]
