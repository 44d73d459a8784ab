"""Data sets as the workflow reads them: one parquet file of problems with answers, and a card of where they came from.

Sources: generated (toy), the Hugging Face hub at a revision, or a .jsonl, .json or .parquet file in the user's folder.
"""

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.data import toy
from ngrpo.errors import UserError, nearest_name
from ngrpo.files import canonical_json, file_sha256, whole_file, write_json
from ngrpo.grading.extract import CHOICES, last_boxed
from ngrpo.hub import reaching_hub
from ngrpo.study.sources import FolderDataset, HubDataset, ToyProblems
from ngrpo.study.specs import DatasetSpec

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # stable and unique
        pa.field("problem", pa.string(), nullable=False),
        pa.field("answer", pa.string()),  # null: the source gives none
        pa.field("solution", pa.string()),
        pa.field("kind", pa.string(), nullable=False),  # math | choice
        pa.field("order", pa.string()),  # choice: the source's option behind each letter, "2013"
    ]
)


def make_dataset(spec: DatasetSpec, out: Path, *, data_folder: Path | None = None) -> None:
    """Read or make the data set and write `out` (SCHEMA) with `.card.json` beside it.

    Raises UserError for an unreachable hub, a missing folder, file or field, an unreadable file, duplicate ids, or a
    number of rows other than the one that the specification names.
    """
    source = spec.dataset.source
    if isinstance(source, ToyProblems):
        raw, origin = toy.make_problems(source), "generated"
        where: object = f"dataset {spec.id}"
    elif isinstance(source, FolderDataset):
        if data_folder is None:
            raise UserError(f"data set '{spec.id}' needs a data folder", do="add --data-folder PATH")
        where = data_folder / source.file
        raw, origin = read_rows(where), f"{source.file}, sha256 {file_sha256(where)}"
    else:
        raw, origin = _from_hub(source)
        where = f"{source.repo}, split {source.split}"
    rows = [_row(spec, raw_row, number, where) for number, raw_row in enumerate(raw)]
    _check(spec, rows, where)
    write_problems(out, rows)
    card = {
        "dataset": spec.id,
        "spec": spec.digest,
        "origin": origin,
        "rows_in": len(raw),
        "rows_out": len(rows),
        "left": {},
        "without_answer": sum(r["answer"] is None for r in rows),
        "sha256": file_sha256(out),
    }
    write_json(card_path(out), card)
    print(f"[dataset {spec.id}] {len(rows)} problems ({origin})")


def card_path(problems: Path) -> Path:
    """Where a problem file's card lies."""
    return problems.with_suffix(".card.json")


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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .json (a list, or one under "data") or .parquet file, as they are."""
    if path.is_dir():
        raise UserError("this is a folder, not a file of rows", where=path, do="name a file in it")
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            # not splitlines(): JSON strings may hold U+2028 and other separators as they are
            lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
            rows: Any = []
            for number, line in lines:
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as e:
                    raise UserError(f"not readable as JSON: {e}", where=f"{path}, line {number}") from None
        elif path.suffix == ".json":
            rows = json.loads(text)
            rows = rows.get("data", rows) if isinstance(rows, dict) else rows
        else:
            raise UserError(f"can't read {path.suffix or 'such'} files", where=path, do="use .jsonl, .json or .parquet")
    except FileNotFoundError:
        raise UserError("there is no such file", where=path) from None
    except (pa.ArrowInvalid, json.JSONDecodeError, UnicodeDecodeError, OSError) as e:
        raise UserError(f"not readable: {e}", where=path, do="fetch or export it again") from None
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise UserError("not a list of rows", where=path)
    return rows


def _from_hub(source: HubDataset) -> tuple[list[dict[str, Any]], str]:
    """A hub data set's rows and its origin with the commit that a branch stood for."""
    import hashlib

    from datasets import load_dataset
    from huggingface_hub import HfApi

    with reaching_hub("data set", source.repo, source.revision):
        commit = HfApi().dataset_info(source.repo, revision=source.revision).sha
        try:
            rows = list(load_dataset(source.repo, source.subset, split=source.split, revision=commit))
        except ValueError as e:  # an unknown split or subset
            raise UserError(str(e), where=source.repo, do="correct the data set's `split` or `subset`") from None
    # canonical JSON, which is hashed, has no NaN
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    seen = hashlib.sha256(canonical_json(rows).encode()).hexdigest()
    if source.sha256 is not None and seen != source.sha256:
        raise UserError(f"the rows' sha256 is {seen}, not the recorded one", where=f"{source.repo} at {commit}")
    return rows, f"{source.repo} at {commit}, split {source.split}, sha256 of rows {seen}"


def _field(row: dict, name: str, number: int, where: object) -> Any:
    if name not in row:
        near = nearest_name(name, row)
        raise UserError(
            f"the field '{name}' is missing; there are {', '.join(sorted(row))}",
            where=f"{where}, row {number + 1}",
            do=f"name it in the data set's `fields`{f', e.g. {near}' if near else ''}",
        )
    return row[name]


def _needed(raw: dict, name: str, what: str, number: int, where: object) -> str:
    """A field's text, which mustn't be blank."""
    value = _field(raw, name, number, where)
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"an empty {what}", where=f"{where}, row {number + 1}, field '{name}'")
    return text


def answer_text(value: Any) -> str | None:
    """An answer as text: 27.0 and "27.0" become "27"; blank and null become None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    whole = text[:-2] if text.endswith(".0") else None
    if whole is not None and whole.lstrip("-").isdigit():
        text = whole
    return text or None


def _row(spec: DatasetSpec, raw: dict, number: int, where: object) -> dict[str, Any]:
    """One row in our schema."""
    names, kind = spec.dataset.fields, spec.dataset.kind
    problem = _needed(raw, names.problem, "problem", number, where)
    row_id = _needed(raw, names.id, "id", number, where) if names.id else f"{number:05d}"
    solution_field = names.solution or ("solution" if "solution" in raw else None)
    solution = _field(raw, solution_field, number, where) if solution_field else None
    order = None
    if kind == "choice":
        problem, answer, order = _choices(spec, raw, problem, row_id, number, where)
    elif names.answer is None:
        answer = last_boxed(str(solution or ""))
    else:
        answer = answer_text(_field(raw, names.answer, number, where))
    row = {
        "id": row_id, "problem": problem, "answer": answer, "solution": solution and str(solution), "kind": kind,
        "order": order,
    }  # fmt: skip
    for name, text in row.items():
        try:
            (text or "").encode()
        except UnicodeEncodeError as e:
            raise UserError(f"the {name} isn't Unicode text: {e}", where=f"{where}, row {number + 1}") from None
    return row


def _choices(
    spec: DatasetSpec, raw: dict[str, Any], problem: str, row_id: str, number: int, where: object
) -> tuple[str, str | None, str | None]:
    """A question with its options in a fixed random order: text, right letter, order."""
    names, here = spec.dataset.fields, f"{where}, row {number + 1}"
    if names.choices is None:
        answer = answer_text(_field(raw, names.answer or "answer", number, where))
        if answer not in (None, *CHOICES):
            raise UserError(f"the answer '{answer}' is none of {', '.join(CHOICES)}", where=here)
        return problem, answer, None
    if isinstance(names.choices, tuple):
        given = [_field(raw, name, number, where) for name in names.choices]
    else:
        given = _field(raw, names.choices, number, where)
    if not isinstance(given, list) or any(o is None for o in given):
        raise UserError(f"the options aren't a list of texts: {given!r}", where=here)
    options = [str(o).strip() for o in given]
    if len(options) != len(CHOICES):
        raise UserError(f"{len(options)} options instead of {len(CHOICES)}", where=here)
    order = list(range(len(options)))
    random.Random(f"{spec.id}/{row_id}").shuffle(order)
    lines = [f"{letter}) {options[i]}" for letter, i in zip(CHOICES, order, strict=True)]
    return "\n".join([problem, "", *lines]), CHOICES[order.index(0)], "".join(map(str, order))


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
