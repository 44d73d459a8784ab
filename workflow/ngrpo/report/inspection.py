"""For a terminal: one problem with all its samples (`ngrpo show`), and how two evaluations differ (`ngrpo diff`).

The functions return text, safe for a terminal (`ngrpo.terminal`).
"""

import shutil
from collections.abc import Sequence

import pandas as pd

from ngrpo.errors import UserError, unknown_name
from ngrpo.formatting import percent, points
from ngrpo.grades import GRADES, displayed
from ngrpo.statistics.metrics import compare, count
from ngrpo.terminal import printable, text_table

TAIL_CHARS = 300


def show(problem_id: str, problems: pd.DataFrame, samples: pd.DataFrame, grades: pd.DataFrame) -> str:
    """One problem: its text and reference, the counts of grades, and every sample's grade, answer and last words.

    problems: id, problem, answer, kind. samples: problem_id, sample, text, finish_reason, tokens. grades: problem_id,
    sample, grade, extracted, reason. Raises UserError for an unknown problem (with the nearest id).
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
    width = max(80, shutil.get_terminal_size((120, 40)).columns)
    rows = []
    for sample in both.itertuples():
        grade = "not graded" if pd.isna(sample.grade) else displayed(sample.grade)
        reason = printable(sample.reason)
        ending = sample.text[-TAIL_CHARS:].strip()
        rows.append(
            [sample.sample, grade, printable(sample.extracted), reason, sample.finish_reason, sample.tokens, ending]
        )
    header = ["sample", "grade", "answer", "reason", "finish", "tokens", "last words"]
    return "\n".join(
        [
            f"problem {problem_id} ({problem['kind']}), reference {printable(problem['answer'], 60)}",
            printable(problem["problem"], 4 * width),
            f"{len(both)} samples: {counts or 'not graded'}",
            "",
            text_table(header, rows, [6, 12, 30, 30, 6, 6, max(20, width - 106)]),
        ]
    )


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
