"""For a terminal: one problem with all its samples (`ngrpo show`), and how two evaluations differ (`ngrpo diff`).

The functions return text, safe for a terminal (`ngrpo.terminal`).
"""

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from ngrpo.errors import UserError, unknown_name
from ngrpo.formatting import percent, points
from ngrpo.grades import GRADES, displayed
from ngrpo.statistics.metrics import compare, count
from ngrpo.terminal import printable, text_table

SHOWN_ANSWER = 60


def show(problem_id: str, problems: pd.DataFrame, samples: pd.DataFrame, grades: pd.DataFrame) -> str:
    """One problem: its text and reference, the counts of grades, and every sample's grade, answer and whole text.

    problems: id, problem, answer, kind. samples: problem_id, sample, text, finish_reason, tokens. grades: problem_id,
    sample, grade, extracted, reason, and the second grader's, where they are. Raises UserError for an unknown problem
    (with the nearest id).
    """
    rows_of_problem = problems[problems["id"].astype(str) == problem_id]
    if rows_of_problem.empty:
        raise unknown_name("problem", problem_id, problems["id"].astype(str), where="ngrpo show")
    problem = rows_of_problem.iloc[0]
    answers = samples[samples["problem_id"].astype(str) == problem_id].assign(problem_id=problem_id)
    verdicts = grades[grades["problem_id"].astype(str) == problem_id].assign(problem_id=problem_id)
    both = answers.merge(verdicts, on=["problem_id", "sample"], how="left", validate="one_to_one").sort_values("sample")
    if both.empty:
        raise UserError(f"problem '{problem_id}' has no samples here", where="ngrpo show")
    totals = both["grade"].value_counts()
    counts = ", ".join(f"{totals[grade]} {displayed(grade)}" for grade in GRADES if grade in totals)
    lines = [
        f"problem {printable(problem_id)} ({problem['kind']}), reference {printable(problem['answer'])}",
        *([printable_lines(problem["problem"])] if problem["problem"] else []),
        f"{len(both)} samples: {counts or 'not graded'}",
    ]
    for sample in both.to_dict("records"):
        lines += ["", _sample_heading(sample), printable_lines(sample["text"])]
    return "\n".join(lines)


def _sample_heading(sample: dict[Hashable, Any]) -> str:
    """Which sample, its grade and answer, how it ended; what is missing is left out."""

    def given(name: str) -> bool:
        return name in sample and not pd.isna(sample[name])

    parts = [displayed(sample["grade"]) if given("grade") else "not graded"]
    parts += [f"answer {printable(sample['extracted'], SHOWN_ANSWER)}"] if given("extracted") else []
    parts += [printable(sample["reason"])] if given("reason") else []
    second = sample["second_grade"] if given("second_grade") else sample["grade"]
    if second != sample["grade"] and given("grade"):
        parts.append(f"second grader: {printable(displayed(str(second)))}")
    parts += [f"finish {printable(sample['finish_reason'])}"] if given("finish_reason") else []
    parts += [f"{int(sample['tokens'])} tokens"] if given("tokens") else []
    return f"--- sample {sample['sample']}: {', '.join(parts)} ---"


def printable_lines(text: object) -> str:
    """Text of several lines, safe for a terminal: line feeds stay, all else as `printable` writes it."""
    return "\n".join(printable(line) for line in str(text).replace("\r\n", "\n").split("\n"))


def diff(
    grades_a: pd.DataFrame,
    grades_b: pd.DataFrame,
    names: tuple[str, str] = ("a", "b"),
    problems: pd.DataFrame | None = None,
    ks: Sequence[int] = (),
) -> str:
    """Two evaluations of the same problems: Mean@n and Pass@k side by side, then the problems that changed most.

    A problem flipped when one evaluation never solves it and the other does; those rows are marked. problems (id,
    problem) adds the problems' first words. Raises UserError where the problems differ.
    """
    compared = compare(grades_a, grades_b, ks)
    a, b = count(grades_a), count(grades_b)
    first, second = names
    header = ["metric", "estimator", first, second, "difference", "95 %, samples", "95 %, problems", "p, sign test"]
    summary = [
        [
            row.metric,
            row.estimator,
            percent(row.a, 2),
            percent(row.b, 2),
            points(row.difference, 2),
            f"{points(row.sampling_low, 2)} to {points(row.sampling_high, 2)}",
            f"{points(row.problems_low, 2)} to {points(row.problems_high, 2)}",
            f"{row.p_sign:.3g}",
        ]
        for row in compared.itertuples()
    ]
    texts = {} if problems is None else dict(zip(problems["id"].astype(str), problems["problem"], strict=True))
    changed = sorted(
        (
            (problem, int(x), int(y))
            for problem, x, y in zip(a.problems, a.correct, b.correct, strict=True)
            if x * b.n != y * a.n
        ),
        key=lambda row: (-abs(row[2] / b.n - row[1] / a.n), row[0]),
    )
    rows = [[problem, f"{x}/{a.n}", f"{y}/{b.n}", _flip(x, y), texts.get(problem, "")] for problem, x, y in changed]
    flipped = sum(bool(row[3]) for row in rows)
    lines = [text_table(header, summary), ""]
    lines.append(f"{len(rows)} of {len(a.problems)} problems changed, {flipped} of them flipped")
    if rows:
        lines += ["", text_table(["problem", first, second, "flipped", "text"], rows, [30, 12, 12, 12, 60])]
    return "\n".join(lines)


def _flip(x: int, y: int) -> str:
    if x == 0 and y > 0:
        return "solved"
    return "lost" if x > 0 and y == 0 else ""
