"""Files of grades: any system's JSONL (`ngrpo grade`), and the study's parquet of samples. Whole or absent.

JSONL in: {id, response, answer, kind: math | choice, finish_reason?}; out: {id, grade, extracted, reason}.
Parquet: one row a sample, sorted as the samples are, with the samples' spec hash, and with the second grader's verdict
(second_grade, second_extracted, second_reason; JSONL has them on request).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import whole_file
from ngrpo.foreign import read_parquet
from ngrpo.grading.conventions import PAPER, SECOND, GradingLimits, GradingSettings
from ngrpo.grading.grader import KINDS, Grade, Grader, Item
from ngrpo.grading.response_files import ResponseFields, finish_reason, read_responses, refuse_output

SAMPLE_COLUMNS = ("problem_id", "sample", "text", "finish_reason", "spec")
PROBLEM_COLUMNS = ("id", "answer", "kind")
Progress = Callable[[int, int], None]


class GradeCounts(dict[str, int]):
    """How many answers got each grade. second: the same of the second grader; differ: on how many they disagree."""

    def __init__(self, grades: Sequence[Grade], second: Sequence[Grade] | None = None):
        super().__init__()
        for grade in grades:
            self[grade.grade] = self.get(grade.grade, 0) + 1
        self.second: GradeCounts | None = None if second is None else GradeCounts(second)
        pairs = zip(grades, second or (), strict=False)
        self.differ = sum((a.grade == "correct") != (b.grade == "correct") for a, b in pairs)


@contextmanager
def _written(path: str | Path) -> Iterator[Path]:
    """whole_file, with a full disk or a refused write as a UserError that names the file."""
    try:
        with whole_file(path) as part:
            yield part
    except OSError as error:
        raise UserError(
            f"the grades could not be written: {error.strerror or error}",
            where=path,
            do="free space or choose another place; nothing half-written was left",
        ) from None


def storable(text: str | None) -> str | None:
    """Text that UTF-8 can hold: lone surrogates become U+FFFD."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def grade_file(
    path: str | Path,
    out: str | Path,
    workers: int | None = None,
    limits: GradingLimits | None = None,
    settings: GradingSettings = PAPER,
    progress: Progress | None = None,
    fields: ResponseFields = ResponseFields(),  # noqa: B008  frozen
    second: bool = False,
) -> GradeCounts:
    """Grade a JSONL file of responses into a JSONL file of grades; returns how many rows got each grade.

    second: with the second grader's verdicts, too. Raises UserError for an unusable file, and for an output that is the
    input, a link or a device.
    """
    refuse_output(out, [path])
    rows = read_responses(path, fields)
    items = [row.item for row in rows]
    with Grader(workers, limits, settings) as grader:
        grades = grader.grade(items, progress)
        others = grader.grade(items, progress, SECOND) if second else None
    with _written(out) as part, open(part, "w", encoding="ascii") as f:
        for number, (row, grade) in enumerate(zip(rows, grades, strict=True)):
            line = {"id": row.id, "grade": grade.grade, "extracted": grade.extracted, "reason": grade.reason}
            if row.problem is not None:
                line["problem_id"] = row.problem
            if others is not None:
                other = others[number]
                line |= {"second_grade": other.grade, "second_extracted": other.extracted}
                line["second_reason"] = other.reason
            f.write(json.dumps(line) + "\n")
    return GradeCounts(grades, others)


def _columns(path: str | Path, names: tuple[str, ...]) -> dict[str, list]:
    """The named columns of a parquet file, as lists; raises UserError for a missing, broken or short file, and for
    samples that name problems by something else than text: nothing would match."""
    import pyarrow as pa

    table = read_parquet(path, names, make="remove it and make it again; it may be cut off")
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        if field.name in ("problem_id", "text") and not text:
            raise UserError(
                f"the column '{field.name}' holds {field.type}, not text", where=path, do="write it as strings"
            )
    columns: dict[str, list] = table.select(list(names)).to_pydict()
    return columns


def _problems(path: str | Path) -> dict[str, tuple[str, str]]:
    """Each problem's (answer, kind) by its id."""
    columns = _columns(path, PROBLEM_COLUMNS)
    problems: dict[str, tuple[str, str]] = {}
    for row, (name, answer, kind) in enumerate(zip(*columns.values(), strict=True)):
        where = f"{path}, row {row}"
        if name is None or answer is None:
            raise UserError(f"the field '{'id' if name is None else 'answer'}' is missing", where=where)
        if str(name) in problems:
            raise UserError(f"the problem id '{name}' occurs twice", where=where)
        if kind not in KINDS:
            raise unknown_name("kind", str(kind), KINDS, where=where)
        problems[str(name)] = (str(answer), kind)
    return problems


def grade_samples(
    samples: str | Path,
    problems: str | Path,
    out: str | Path,
    workers: int | None = None,
    limits: GradingLimits | None = None,
    settings: GradingSettings = PAPER,
    progress: Progress | None = None,
) -> GradeCounts:
    """Grade a parquet of samples against a parquet of problems; returns how many samples got each grade.

    samples: problem_id, sample, text, finish_reason, spec. problems: id, answer, kind.
    out: problem_id, sample, grade, extracted, reason, spec, second_grade, second_extracted, second_reason; one row a
    sample, in the samples' order. Raises UserError for unusable files, and for an output that is an input, a link or a
    device.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_output(out, [samples, problems])
    columns = _columns(samples, SAMPLE_COLUMNS)
    items = _sample_items(samples, problems, columns)
    with Grader(workers, limits, settings) as grader:
        grades = grader.grade(items, progress)
        second = grader.grade(items, progress, SECOND)
    table = pa.table(
        {
            "problem_id": pa.array(columns["problem_id"], pa.string()),
            "sample": pa.array(columns["sample"], pa.int64()),
            **_grade_columns(grades),
            "spec": pa.array(columns["spec"], pa.string()),
            **_grade_columns(second, "second_"),
        }
    )
    with _written(out) as part:
        pq.write_table(table, part)
    return GradeCounts(grades, second)


def _grade_columns(grades: Sequence[Grade], prefix: str = "") -> dict[str, Any]:
    import pyarrow as pa

    return {
        f"{prefix}grade": pa.array([grade.grade for grade in grades], pa.string()),
        f"{prefix}extracted": pa.array([storable(grade.extracted) for grade in grades], pa.string()),
        f"{prefix}reason": pa.array([storable(grade.reason) for grade in grades], pa.string()),
    }


def _sample_items(samples: str | Path, problems: str | Path, columns: dict[str, list]) -> list[Item]:
    """The samples as items; raises UserError for one that can't be graded."""
    known = _problems(problems)
    items: list[Item] = []
    seen: set[tuple[str, int]] = set()
    for row, (name, number, text, ended, _) in enumerate(zip(*columns.values(), strict=True)):
        where = f"{samples}, row {row}"
        if name not in known:
            raise unknown_name("problem", str(name), known, where=f"{where} (problems: {problems})")
        if (name, number) in seen:
            raise UserError(f"sample {number} of problem '{name}' occurs twice", where=where)
        if text is None:
            raise UserError("the field 'text' is missing", where=where)
        reason = finish_reason(ended, where)
        seen.add((name, number))
        answer, kind = known[name]
        items.append(Item(f"{name}, sample {number}", text, answer, kind, reason))
    if not items:
        raise UserError("the file holds no samples", where=samples)
    return items
