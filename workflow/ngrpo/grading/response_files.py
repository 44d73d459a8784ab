"""Any system's JSONL of responses: which fields hold what, and rows as items. A mistake names its file and line."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError, unknown_name
from ngrpo.foreign import stream_json_lines
from ngrpo.grades import GRADES
from ngrpo.grading.grader import FINISH_REASONS, KINDS, Item

_SAME_REASON = {
    "": None,
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "stop_str", "stopped"), "stop"),
    **dict.fromkeys(("max_tokens", "max_new_tokens", "max_length", "truncated"), "length"),
}
"""What engines and services write for "stop" and "length"; an empty text says nothing."""


@dataclass(frozen=True)
class ResponseFields:
    """Where a row holds what; a dot goes into an object: reward_model.ground_truth. kind: for rows that have none."""

    id: str = "id"
    response: str = "response"
    answer: str = "answer"
    kind: str | None = None


@dataclass(frozen=True)
class ResponseRow:
    """A row to grade, and its id as it was written (a number stays one).

    problem: what it answers, where rows name it (problem_id): several rows may answer one problem.
    """

    id: str | int | float
    item: Item
    problem: str | None = None


def finish_reason(value: object, where: object) -> str | None:
    """ "stop", "length" or None for what an engine wrote. Raises UserError for what it isn't known to mean."""
    if value is None:
        return None
    reason = str(value).strip().lower()
    reason = _SAME_REASON.get(reason, reason) or ""
    if reason and reason not in FINISH_REASONS:
        raise unknown_name("finish_reason", str(value), (*FINISH_REASONS, *filter(None, _SAME_REASON)), where=where)
    return reason or None


def _value(row: dict[str, Any], path: str) -> Any:
    """A field by its name, else by its dotted path; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def _references(answer: object, field: str, where: str) -> list[str]:
    """Every accepted reference: one, or a list of them."""
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(isinstance(a, str | int | float) and not isinstance(a, bool) for a in answers):
        hint = None
        if isinstance(answer, dict):
            inside = ", ".join(f"{field}.{name}" for name in list(answer)[:5])
            hint = f"it is an object: name a field of it, as --answer-field {inside}"
        raise UserError(f"the field '{field}' must be a string or a number, or a list of them", where=where, do=hint)
    return [str(a) for a in answers]


def _row(row: object, fields: ResponseFields, where: str) -> ResponseRow:
    if not isinstance(row, dict):
        raise UserError(f"a row must be a JSON object, not {type(row).__name__}", where=where)
    needed = {"id": fields.id, "response": fields.response, "answer": fields.answer}
    values = {what: _value(row, path) for what, path in needed.items()}
    values["kind"] = row.get("kind") if row.get("kind") is not None else fields.kind
    for what, value in values.items():
        if value is None:
            raise UserError(
                f"the field '{needed.get(what, what)}' is missing",
                where=where,
                do=f"each row needs id, response, answer, kind; other names and a kind for all: ngrpo grade --help;"
                f" here: {', '.join(map(str, list(row)[:12])) or 'nothing'}",
            )
    if not isinstance(values["id"], str | int | float) or isinstance(values["id"], bool):
        raise UserError(f"the field '{fields.id}' must be a string or a number", where=where)
    if not str(values["id"]).strip():
        raise UserError(f"the field '{fields.id}' is empty", where=where, do="give each row an id")
    if not isinstance(values["response"], str):
        raise UserError(f"the field '{fields.response}' must be a string", where=where)
    if values["kind"] not in KINDS:
        raise unknown_name("kind", str(values["kind"]), KINDS, where=where)
    first, *others = _references(values["answer"], fields.answer, where)
    reason = finish_reason(row.get("finish_reason"), where)
    item = Item(str(values["id"]), values["response"], first, values["kind"], reason, tuple(others))
    problem = row.get("problem_id")
    return ResponseRow(values["id"], item, None if problem is None else str(problem))


def read_responses(path: str | Path, fields: ResponseFields = ResponseFields()) -> list[ResponseRow]:
    """The rows of a JSONL file of responses; raises UserError with file and line for anything unusable."""
    rows: list[ResponseRow] = []
    lines: dict[str, str] = {}
    for where, value in stream_json_lines(path):
        row = _row(value, fields, where)
        if row.item.id in lines:
            raise UserError(f"the id '{row.id}' is already on {lines[row.item.id]}", where=where)
        lines[row.item.id] = where.rpartition(", ")[2]
        rows.append(row)
    if not rows:
        raise UserError("the file holds no rows", where=path)
    return rows


def read_graded(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file that `grade_file` wrote, as a table of grades: problem_id, sample, grade.

    Rows of one problem_id are its samples; without one, each id is a problem with one sample.
    """
    rows: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for where, row in stream_json_lines(path):
        if not isinstance(row, dict) or row.get("id") is None or row.get("grade") is None:
            raise UserError(
                "a row of grades needs id and grade",
                where=where,
                do=f"grade responses first: ngrpo grade {path} --out OUT",
            )
        if row["grade"] not in GRADES:
            raise unknown_name("grade", str(row["grade"]), GRADES, where=where)
        problem = str(row["id"] if row.get("problem_id") is None else row["problem_id"])
        rows.append({"problem_id": problem, "sample": seen[problem], "grade": row["grade"]})
        seen[problem] += 1
    if not rows:
        raise UserError("the file holds no rows", where=path)
    return rows


def refuse_output(out: str | Path, inputs: Sequence[str | Path | None]) -> None:
    """Raises UserError for an output that would replace an input, a link, a device or a folder."""
    out = Path(out)
    if str(out) == "-":
        raise UserError(
            "grades go to a file, not to the terminal", where="--out -", do="name a file; print it with cat"
        )
    if out.is_symlink():
        raise UserError(
            "the output is a link, which grades would replace", where=out, do="name a file; print it with cat"
        )
    if out.exists() and not out.is_file():
        what = "a folder" if out.is_dir() else "a device or a pipe"
        raise UserError(f"the output is {what}, not a file", where=out, do="name a file; print it with cat")
    for given in inputs:
        path = None if given is None else Path(given)
        same = path is not None and (
            os.path.realpath(path) == os.path.realpath(out) or (out.exists() and path.exists() and out.samefile(path))
        )
        if same:
            raise UserError("the output is the input, which grades would replace", where=out, do="name another file")
