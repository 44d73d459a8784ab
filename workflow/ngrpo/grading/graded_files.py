"""Files of grades: any system's JSONL (`ngrpo grade`), and the study's parquet of samples. Whole or absent.

JSONL in: {id, response, answer, kind: math | choice, finish_reason?}; out: {id, grade, extracted, reason}.
Parquet: one row a sample, sorted as the samples are, with the samples' spec hash.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import whole_file
from ngrpo.grading.grader import FINISH_REASONS, KINDS, PAPER, Grade, Grader, GradingLimits, GradingSettings, Item

SAMPLE_COLUMNS = ("problem_id", "sample", "text", "finish_reason", "spec")
PROBLEM_COLUMNS = ("id", "answer", "kind")
Progress = Callable[[int, int], None]


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


def _item(row: object, where: str) -> Item:
    if not isinstance(row, dict):
        raise UserError(f"a row must be a JSON object, not {type(row).__name__}", where=where)
    for field in ("id", "response", "answer", "kind"):
        if row.get(field) is None:
            raise UserError(
                f"the field '{field}' is missing", where=where, do="each row needs id, response, answer, kind"
            )
    if not isinstance(row["response"], str):
        raise UserError("the field 'response' must be a string", where=where)
    if not isinstance(row["answer"], str | int | float) or isinstance(row["answer"], bool):
        raise UserError("the field 'answer' must be a string or a number", where=where)
    if row["kind"] not in KINDS:
        raise unknown_name("kind", str(row["kind"]), KINDS, where=where)
    finish_reason = row.get("finish_reason")
    if finish_reason is not None and finish_reason not in FINISH_REASONS:
        raise unknown_name("finish_reason", str(finish_reason), FINISH_REASONS, where=where)
    return Item(str(row["id"]), row["response"], str(row["answer"]), row["kind"], finish_reason)


def read_items(path: str | Path) -> list[Item]:
    """The rows of a JSONL file of responses; raises UserError with file and line for anything unusable."""
    items: list[Item] = []
    lines: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, start=1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"not readable as JSON: {error}", where=where) from None
                item = _item(row, where)
                if item.id in lines:
                    raise UserError(f"the id '{item.id}' is already on line {lines[item.id]}", where=where)
                lines[item.id] = number
                items.append(item)
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: {error}", where=path) from None
    if not items:
        raise UserError("the file holds no rows", where=path)
    return items


def grade_file(
    path: str | Path,
    out: str | Path,
    workers: int | None = None,
    limits: GradingLimits | None = None,
    settings: GradingSettings = PAPER,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Grade a JSONL file of responses into a JSONL file of grades; returns how many rows got each grade."""
    items = read_items(path)
    with Grader(workers, limits, settings) as grader:
        grades = grader.grade(items, progress)
    with _written(out) as part, open(part, "w", encoding="ascii") as f:
        for item, grade in zip(items, grades, strict=True):
            row = {"id": item.id, "grade": grade.grade, "extracted": grade.extracted, "reason": grade.reason}
            f.write(json.dumps(row) + "\n")
    return _counts(grades)


def _counts(grades: list[Grade]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for grade in grades:
        counts[grade.grade] = counts.get(grade.grade, 0) + 1
    return counts


def _columns(path: str | Path, names: tuple[str, ...]) -> dict[str, list]:
    """The named columns of a parquet file, as lists; raises UserError for a missing, broken or short file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        present = pq.read_schema(path).names
        missing = [name for name in names if name not in present]
        if missing:
            raise UserError(f"the column '{missing[0]}' is missing", where=path, do=f"present: {', '.join(present)}")
        return pq.read_table(path, columns=list(names)).to_pydict()
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"not a whole parquet file: {first}", where=path, do="remove it and make it again; it may be cut off"
        ) from None


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
) -> dict[str, int]:
    """Grade a parquet of samples against a parquet of problems; returns how many samples got each grade.

    samples: problem_id, sample, text, finish_reason, spec. problems: id, answer, kind.
    out: problem_id, sample, grade, extracted, reason, spec; one row a sample, in the samples' order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = _problems(problems)
    columns = _columns(samples, SAMPLE_COLUMNS)
    items: list[Item] = []
    seen: set[tuple[str, int]] = set()
    for row, (name, number, text, finish_reason, _) in enumerate(zip(*columns.values(), strict=True)):
        where = f"{samples}, row {row}"
        if name not in known:
            raise unknown_name("problem", str(name), known, where=f"{where} (problems: {problems})")
        if (name, number) in seen:
            raise UserError(f"sample {number} of problem '{name}' occurs twice", where=where)
        if text is None:
            raise UserError("the field 'text' is missing", where=where)
        if finish_reason not in FINISH_REASONS:
            raise unknown_name("finish_reason", str(finish_reason), FINISH_REASONS, where=where)
        seen.add((name, number))
        answer, kind = known[name]
        items.append(Item(f"{name}, sample {number}", text, answer, kind, finish_reason))
    if not items:
        raise UserError("the file holds no samples", where=samples)
    with Grader(workers, limits, settings) as grader:
        grades = grader.grade(items, progress)
    table = pa.table(
        {
            "problem_id": pa.array(columns["problem_id"], pa.string()),
            "sample": pa.array(columns["sample"], pa.int64()),
            "grade": pa.array([grade.grade for grade in grades], pa.string()),
            "extracted": pa.array([storable(grade.extracted) for grade in grades], pa.string()),
            "reason": pa.array([storable(grade.reason) for grade in grades], pa.string()),
            "spec": pa.array(columns["spec"], pa.string()),
        }
    )
    with _written(out) as part:
        pq.write_table(table, part)
    return _counts(grades)
