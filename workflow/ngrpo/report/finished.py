"""What is finished, as text for the terminal: a table, one problem's samples, how two evaluations differ.

Raises UserError, with the command that makes it, for what isn't there yet.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from ngrpo.audit.status import GRADE_COLUMNS
from ngrpo.errors import UserError, unknown_name
from ngrpo.foreign import read_parquet
from ngrpo.grading import SECOND, Grader
from ngrpo.grading.response_files import read_graded, read_responses
from ngrpo.report.inspection import diff, show
from ngrpo.report.tables import read_table, terminal_table
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.terminal import quoted

_TEXT, _NUMBER = pa.string(), pa.int32()
SHOWN = (
    pa.schema([pa.field("id", _TEXT, nullable=False), ("problem", _TEXT), ("answer", _TEXT), ("kind", _TEXT)]),
    pa.schema(
        [
            pa.field("problem_id", _TEXT, nullable=False),
            pa.field("sample", _NUMBER, nullable=False),
            pa.field("text", _TEXT, nullable=False),
            ("finish_reason", _TEXT),
            ("tokens", _NUMBER),
        ]
    ),
    pa.schema([*GRADE_COLUMNS, ("extracted", _TEXT), ("reason", _TEXT)]),
)
"""Columns of problems, samples and grades that are shown."""


def table_text(results: Results, table: str) -> str:
    """A table's numbers, and where the report is."""
    numbers = read_table(_there(results.table(table), f"table '{table}' isn't computed yet"))
    page = results.report.page
    where = page.resolve() if page.exists() else f"not written yet; snakemake --cores 2 {page}"
    return f"{terminal_table(numbers)}\n\nReport: {where}"


def problem_text(study: Study, results: Results, evaluation: str, problem: str) -> str:
    """A problem of an evaluation: all its samples, answers and grades."""
    return show(problem, *_frames(study, results, evaluation))


def difference_text(study: Study, results: Results, first: str, second: str) -> str:
    """Which problems of one benchmark flipped between two evaluations."""
    problems, _, one = _frames(study, results, first)
    _, _, other = _frames(study, results, second)
    ks = [k for k in study.size.evaluation.pass_at if k > 1]
    return diff(one, other, (first, second), problems, ks)


def response_text(path: Path, name: str) -> str:
    """Any system's responses: the rows whose id or problem_id is `name`, graded here by the paper's rules."""
    rows = [row for row in read_responses(path) if name in (row.item.id, row.problem)]
    if not rows:
        known = {n for row in read_responses(path) for n in (row.item.id, row.problem) if n is not None}
        raise unknown_name("response", name, known, where=path)
    with Grader(1) as grader:
        grades = grader.grade([row.item for row in rows])
        second = grader.grade([row.item for row in rows], settings=SECOND)
    first = rows[0].item
    references = " or ".join((first.answer, *first.also))
    problems = pd.DataFrame([{"id": name, "problem": "", "answer": references, "kind": first.kind}], dtype=object)
    samples = [
        {"problem_id": name, "sample": number, "text": row.item.response, "finish_reason": row.item.finish_reason}
        for number, row in enumerate(rows)
    ]
    verdicts = [
        {"problem_id": name, "sample": number, "grade": grade.grade, "extracted": grade.extracted,
         "reason": grade.reason, "second_grade": other.grade}
        for number, (grade, other) in enumerate(zip(grades, second, strict=True))
    ]  # fmt: skip
    # objects: a model may write text that UTF-8, and so Arrow, can't hold
    return show(name, problems, pd.DataFrame(samples, dtype=object), pd.DataFrame(verdicts, dtype=object))


def graded_difference_text(first: Path, second: Path) -> str:
    """Which problems flipped between two files of grades of any systems, with Pass@k at powers of two."""
    frames = [pd.DataFrame(read_graded(path)) for path in (first, second)]
    n = min(int(frame.groupby("problem_id").size().min()) for frame in frames)
    ks = [2**i for i in range(1, n.bit_length()) if 2**i <= n]
    return diff(frames[0], frames[1], (first.name, second.name), None, ks)


def _frames(study: Study, results: Results, name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Problems, samples and grades of an evaluation."""
    if name not in study.evaluations:
        raise unknown_name("evaluation", name, study.evaluations, where=f"scale {study.scale}")
    files = results.evaluation(name)
    problems = results.dataset(study.evaluations[name].benchmark.id).problems
    there = [_there(path, "this evaluation isn't finished") for path in (problems, files.samples, files.grades)]
    asked, samples, grades = (read_parquet(path, schema).to_pandas() for path, schema in zip(there, SHOWN, strict=True))
    for path, frame in zip(there[1:], (samples, grades), strict=True):
        twice = frame[frame.duplicated(["problem_id", "sample"])]
        if len(twice):
            first = f"sample {twice['sample'].iloc[0]} of problem '{quoted(twice['problem_id'].iloc[0])}'"
            raise UserError(f"{first} is there twice", where=path, do="delete the file and make it again")
    return asked, samples, grades


def _there(path: Path, what: str) -> Path:
    if not path.exists():
        raise UserError(what, where=path, do=f"snakemake --cores 2 {path}")
    return path
