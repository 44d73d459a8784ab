"""Data sets as the workflow reads them: one parquet file of problems with answers, and a card of where they came from.

Sources: generated (`ngrpo.data.toy`, `ngrpo.data.generated`), the Hugging Face hub at a revision, or a file in the
user's folder (`ngrpo.data.row_files`).
What a row's columns may hold: `ngrpo.data.values`; multiple choice: `ngrpo.data.choices`.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.data import toy
from ngrpo.data.choices import choice_row
from ngrpo.data.fetching import Archive, hub_rows
from ngrpo.data.generated import arithmetic
from ngrpo.data.gradable import ungradable
from ngrpo.data.row_files import read_rows
from ngrpo.data.values import answer_text, field, is_null, text_of
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, whole_file, write_json
from ngrpo.grading.extract import boxes, last_boxed
from ngrpo.study.cards import id_digest
from ngrpo.study.sources import ArithmeticProblems, Fields, FolderDataset, ToyProblems
from ngrpo.study.specs import DatasetSpec
from ngrpo.terminal import echo

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # stable and unique
        pa.field("problem", pa.string(), nullable=False),
        pa.field("answer", pa.string()),  # null: the source gives none
        pa.field("solution", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # math | choice | number
        pa.field("order", pa.string()),  # choice: the source's option behind each letter, "2013"
    ]
)

SHOWN = 5  # ids that a message names


def make_dataset(
    spec: DatasetSpec,
    out: Path,
    *,
    data_folder: Path | None = None,
    asked: bool = False,
    archive: Archive | None = None,
) -> None:
    """Read or make the data set and write `out` (SCHEMA) with `.card.json` beside it.

    asked: its problems are asked (benchmarks, validation): each needs an answer, and the card and a printed line name
    those whose answer the grader doesn't match with itself. archive: of a hub's data set. Raises UserError for an
    unreachable hub, a missing folder, file or field, an unreadable file, a value that isn't text, duplicate ids, asked
    problems without an answer, or another number of rows, or other rows, than those that were asked for.
    """
    source = spec.dataset.source
    where: object = f"dataset {spec.id}"
    if isinstance(source, ToyProblems):
        raw, origin = toy.make_problems(source), "generated"
    elif isinstance(source, ArithmeticProblems):
        raw, origin = arithmetic(source, spec.dataset.examples or ""), "generated"
    elif isinstance(source, FolderDataset):
        if data_folder is None:
            raise UserError(f"data set '{spec.id}' needs a data folder", do="add --data-folder PATH")
        where = data_folder / source.file
        raw, origin = read_rows(where), f"{source.file}, sha256 {file_sha256(where)}"
    else:
        raw, origin = hub_rows(source, fetched_path(out), archive or Archive())
        where = f"{source.repo}, split {source.split}"
    rows = [_row(spec, raw_row, number, where) for number, raw_row in enumerate(raw)]
    _check(spec, rows, where)
    if asked:
        _check_answers(rows, where)
    unmatched = sorted(ungradable(rows)) if asked else []
    write_problems(out, rows)
    card = {
        "dataset": spec.id,
        "spec": spec.digest,
        "origin": origin,
        "rows_in": len(raw),
        "rows_out": len(rows),
        "left": {},
        "without_answer": sum(r["answer"] is None for r in rows),
        **({"ungradable": unmatched} if asked else {}),
        "sha256": file_sha256(out),
        "asked": id_digest(row["id"] for row in rows[: spec.dataset.limit]),
    }
    write_json(card_path(out), card)
    echo(f"[dataset {spec.id}] {len(rows)} problems ({origin})")
    if unmatched:
        some = ", ".join(unmatched[:SHOWN]) + (f" and {len(unmatched) - SHOWN} more" if len(unmatched) > SHOWN else "")
        echo(f"[dataset {spec.id}] the grader can't match the answer of {some}: no response to it can be right")


def card_path(problems: Path) -> Path:
    """Where a problem file's card lies."""
    return problems.with_suffix(".card.json")


def fetched_path(problems: Path) -> Path:
    """Where it is written which rows the hub gave for a problem file."""
    return problems.with_suffix(".fetched.json")


def write_problems(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write problems with the declared schema, whole or not at all."""
    with whole_file(out) as part:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), part)


def read_problems(path: Path) -> list[dict[str, Any]]:
    """A problem file's rows. Raises UserError where it is missing, cut short or has another schema."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError("there is no such problem file", where=path) from None
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"not a whole parquet file: {e}", where=path, do="delete it and make it again") from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(f"the column '{missing[0]}' is missing", where=path, do="make it with `ngrpo dataset`")
    return table.to_pylist()


def _row(spec: DatasetSpec, raw: dict[str, Any], number: int, source: object) -> dict[str, Any]:
    """One row in our schema."""
    names, kind, where = spec.dataset.fields, spec.dataset.kind, f"{source}, row {number + 1}"
    asked = field(raw, names.problem, where)
    problem = "" if is_null(asked) else text_of(asked, names.problem, "problem", where)
    row_id = answer_text(field(raw, names.id, where), names.id, "id", where) if names.id else f"{number:05d}"
    for name, text, what in ((names.problem, problem, "problem"), (names.id, row_id, "id")):
        if not text:
            raise UserError(f"an empty {what}", where=f"{where}, field '{name}'")
    solution, order = _solution(names, raw, where), None
    if kind == "choice":
        problem, answer, order = choice_row(names, raw, problem, f"{spec.id}/{row_id}", where)
    elif names.answer is None:
        answer = _boxed(solution or "", names, where)
    else:
        answer = _after(names, answer_text(field(raw, names.answer, where), names.answer, where=where))
    row = {"id": row_id, "problem": problem, "answer": answer, "solution": solution, "kind": kind, "order": order}
    for name, text in row.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError as e:
            raise UserError(f"the {name} isn't Unicode text: {e}", where=where) from None
    return row


def _after(names: Fields, text: str | None) -> str | None:
    """The answer in its column's text; None where what must stand before it doesn't, or nothing follows."""
    if names.answer_after is None or text is None:
        return text
    _, mark, answer = text.rpartition(names.answer_after)
    return (answer.strip() or None) if mark else None


def _solution(names: Fields, raw: dict[str, Any], where: str) -> str | None:
    """A row's solution as it is; a column of that name that nobody named counts where it holds text."""
    if names.solution is None:
        value = raw.get("solution")
        return value if isinstance(value, str) and value else None
    value = field(raw, names.solution, where)
    if is_null(value) or value == "":
        return None
    text = text_of(value, names.solution, "solution", where)
    return value if isinstance(value, str) else text


def _boxed(solution: str, names: Fields, where: str) -> str | None:
    """The answer in a solution's box. Raises UserError where several boxes differ and no rule is named."""
    different = list(dict.fromkeys("".join(box.split()) for box in boxes(solution)))
    if len(different) > 1 and names.boxes is None:
        shown = ", ".join(f"\\boxed{{{box:.40}}}" for box in different[:4])
        raise UserError(
            f"the solution has {len(different)} different boxes: {shown}; which is the answer?",
            where=f"{where}, field '{names.solution or 'solution'}'",
            do="name the answer's column in the data set's `fields`, or set `boxes: last` there",
        )
    return last_boxed(solution)


def _check_answers(rows: list[dict], where: object) -> None:
    lacking = [row["id"] for row in rows if row["answer"] is None]
    if lacking:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        raise UserError(
            f"{len(lacking)} of {len(rows)} problems have no answer, and no response to them could be graded: "
            f"{', '.join(lacking[:SHOWN])}{more}",
            where=where,
            do="correct the data set's `fields`, or leave these rows out of the file",
        )


def _check(spec: DatasetSpec, rows: list[dict], where: object) -> None:
    if not rows:
        raise UserError("no rows", where=where)
    if spec.dataset.rows is not None and len(rows) != spec.dataset.rows:
        raise UserError(
            f"{len(rows)} rows instead of {spec.dataset.rows}",
            where=where,
            do="check that this is the right data set and that the file is whole",
        )
    (most, count), *_ = Counter(r["id"] for r in rows).most_common(1)
    if count > 1:
        raise UserError(f"the id '{most}' is given to {count} rows", where=where, do="make ids unique, or name none")
