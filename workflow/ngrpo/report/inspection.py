"""Terminal tables: one problem with all its samples (`ngrpo show`), and how two evaluations differ (`ngrpo diff`).

The functions return text. Responses are shown escaped: control characters and text-direction marks never reach the
terminal.
"""

import shutil
import unicodedata
from collections.abc import Sequence

import pandas as pd

from ngrpo.errors import UserError, unknown_name
from ngrpo.grading.grader import GRADES, displayed
from ngrpo.statistics.metrics import compare, count

TAIL_CHARS = 300


def printable(text: object, width: int | None = None) -> str:
    """Text on one line, safe for a terminal: controls, direction marks and surrogates as escapes; cut to width."""
    if text is None or (isinstance(text, float) and pd.isna(text)):
        return ""
    source = str(text) if width is None else str(text)[: 4 * width]
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")
    line = "".join(
        c.encode("unicode_escape", "surrogatepass").decode() if unicodedata.category(c) in unsafe else c for c in source
    )
    return line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int] | None = None) -> str:
    """Rows under a header in columns; numbers to the right; a column is cut at its width."""
    limits = widths or [60] * len(header)
    cells = [[printable(cell, limit) for cell, limit in zip(row, limits, strict=True)] for row in rows]
    sizes = [max(len(str(line[i])) for line in [list(header), *cells]) for i in range(len(header))]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(s) if r else v.ljust(s) for v, s, r in zip(values, sizes, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * size for size in sizes), *(line(row) for row in cells)])


def show(problem_id: str, problems: pd.DataFrame, samples: pd.DataFrame, grades: pd.DataFrame) -> str:
    """One problem: its text and reference, the counts of grades, and every sample's grade, answer and last words.

    problems: id, problem, answer, kind. samples: problem_id, sample, text, finish_reason, tokens. grades: problem_id,
    sample, grade, extracted, reason. Raises UserError for an unknown problem (with the nearest id).
    """
    found = problems[problems["id"].astype(str) == problem_id]
    if found.empty:
        raise unknown_name("problem", problem_id, problems["id"].astype(str), where="ngrpo show")
    problem = found.iloc[0]
    mine = samples[samples["problem_id"].astype(str) == problem_id].assign(problem_id=problem_id)
    verdicts = grades[grades["problem_id"].astype(str) == problem_id].assign(problem_id=problem_id)
    both = mine.merge(verdicts, on=["problem_id", "sample"], how="left", validate="one_to_one").sort_values("sample")
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
            table(header, rows, [6, 12, 30, 30, 6, 6, max(20, width - 106)]),
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
            f"{100 * row.a:.2f}",
            f"{100 * row.b:.2f}",
            f"{100 * row.difference:+.2f}",
            f"{100 * row.sampling_low:+.2f} to {100 * row.sampling_high:+.2f}",
            f"{100 * row.problems_low:+.2f} to {100 * row.problems_high:+.2f}",
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
    lines = [table(header, summary), ""]
    lines.append(f"{len(rows)} of {len(a.problems)} problems changed, {flipped} of them flipped")
    if rows:
        lines += ["", table(["problem", first, second, "flipped", "text"], rows, [30, 12, 12, 12, 60])]
    return "\n".join(lines)


def _flip(x: int, y: int) -> str:
    if x == 0 and y > 0:
        return "solved"
    return "lost" if x > 0 and y == 0 else ""
