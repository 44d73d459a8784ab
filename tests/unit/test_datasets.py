"""Data sets from a user's folder: every shape that is read, every mistake that is named."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from ngrpo.data.datasets import answer_text, card_path, make_dataset, read_problems, read_rows
from ngrpo.errors import UserError
from ngrpo.study.cards import id_digest
from ngrpo.study.sources import Dataset, Fields, FolderDataset
from ngrpo.study.specs import DatasetSpec

ROWS = [{"id": i, "question": f"What is {i} + {i}?", "answer": float(2 * i), "solution": f"It is \\boxed{{{2 * i}}}."}
        for i in range(4)]  # fmt: skip


def _spec(file: str = "set.jsonl", **changes) -> DatasetSpec:
    fields = changes.pop("fields", Fields(problem="question", id="id"))
    return DatasetSpec(
        id="set",
        dataset=Dataset(source=FolderDataset(kind="folder", file=file), fields=fields, instruction="", **changes),
    )


def _write(folder: Path, rows=ROWS, name: str = "set.jsonl") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith(".json"):
        path.write_text(json.dumps({"data": rows}))
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("name", ["set.jsonl", "set.json", "set.parquet"])
def test_every_format_gives_the_same_problems(tmp_path: Path, name: str) -> None:
    _write(tmp_path, name=name)
    out = tmp_path / "out.parquet"
    make_dataset(_spec(name), out, data_folder=tmp_path)
    rows = read_problems(out)
    assert [r["answer"] for r in rows] == ["0", "2", "4", "6"]
    assert [r["id"] for r in rows] == ["0", "1", "2", "3"]
    assert rows[1]["problem"] == "What is 1 + 1?"
    card = json.loads(card_path(out).read_text())
    assert (card["rows_in"], card["rows_out"]) == (4, 4)
    first = out.read_bytes()
    make_dataset(_spec(name), out, data_folder=tmp_path)
    assert out.read_bytes() == first


ANSWERS = [
    ("27.0", "27"), (27.0, "27"), (27, "27"), ("-3.0", "-3"), ("2.50", "2.50"), ("", None), (None, None),
    (float("nan"), None), (" \\frac{1}{2} ", "\\frac{1}{2}"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), ANSWERS)
def test_answers_become_text(value, text) -> None:
    assert answer_text(value) == text


def test_without_an_answer_field_the_last_box_of_the_solution_counts(tmp_path: Path) -> None:
    _write(tmp_path)
    out = tmp_path / "out.parquet"
    make_dataset(_spec(fields=Fields(problem="question", answer=None, solution="solution")), out, data_folder=tmp_path)
    assert [r["answer"] for r in read_problems(out)] == ["0", "2", "4", "6"]


def test_an_answer_can_stand_after_a_mark_in_its_column(tmp_path: Path) -> None:
    """GSM8K: a worked solution, then #### and the number."""
    texts = ["2 #### 3 = 6\n#### 1,200", "So 7.\n####7 ", "no mark", "####"]
    _write(tmp_path, [{"question": f"What is {i}?", "answer": text} for i, text in enumerate(texts)])
    out = tmp_path / "out.parquet"
    make_dataset(_spec(fields=Fields(problem="question", answer_after="####")), out, data_folder=tmp_path)
    assert [r["answer"] for r in read_problems(out)] == ["1,200", "7", None, None]
    make_dataset(_spec(fields=Fields(problem="question")), out, data_folder=tmp_path)
    assert next(r["answer"] for r in read_problems(out)) == texts[0]  # the control: else the column is the answer


def test_options_are_shuffled_by_a_recorded_permutation_and_the_right_letter_follows(tmp_path: Path) -> None:
    options = ["right", "wrong 1", "wrong 2", "wrong 3"]
    _write(tmp_path, [{"question": f"Which, {i}?", "options": options} for i in range(40)])
    spec = _spec(kind="choice", fields=Fields(problem="question", choices="options"))
    make_dataset(spec, tmp_path / "a.parquet", data_folder=tmp_path)
    make_dataset(spec, tmp_path / "b.parquet", data_folder=tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    rows = read_problems(tmp_path / "a.parquet")
    assert {r["answer"] for r in rows} == set("ABCD")
    for row in rows:
        assert f"{row['answer']}) right" in row["problem"]
        shown = [line[3:] for line in row["problem"].splitlines()[-4:]]
        assert shown == [options[int(i)] for i in row["order"]]


def test_options_in_a_column_each_are_the_same_question(tmp_path: Path) -> None:
    columns = ("Correct", "Wrong 1", "Wrong 2", "Wrong 3")
    _write(tmp_path, [{"q": "Which?", "o": ["a", "b", "c", "d"]}], "list.jsonl")
    _write(tmp_path, [{"q": "Which?", **dict(zip(columns, "abcd", strict=True))}], "columns.jsonl")
    for name, choices in (("list", "o"), ("columns", columns)):
        spec = _spec(f"{name}.jsonl", kind="choice", fields=Fields(problem="q", choices=choices))
        make_dataset(spec, tmp_path / f"{name}.parquet", data_folder=tmp_path)
    assert read_problems(tmp_path / "list.parquet") == read_problems(tmp_path / "columns.parquet")


def test_the_order_of_options_depends_on_set_and_question_alone(tmp_path: Path) -> None:
    rows = [{"id": str(i), "question": "Which?", "options": ["a", "b", "c", "d"]} for i in range(20)]
    spec = _spec(kind="choice", fields=Fields(problem="question", choices="options", id="id"))
    orders = []
    for some in (rows, rows[::-1], rows[5:]):
        _write(tmp_path, some)
        make_dataset(spec, tmp_path / "out.parquet", data_folder=tmp_path)
        orders.append({r["id"]: r["order"] for r in read_problems(tmp_path / "out.parquet")})
    assert orders[0] == orders[1]
    assert orders[2].items() <= orders[0].items()
    assert len(set(orders[0].values())) > 5  # the control: it isn't one order for all


def test_a_question_with_its_letter_is_taken_as_it_is(tmp_path: Path) -> None:
    _write(tmp_path, [{"question": "Which? A) 1 B) 2", "answer": "B"}])
    make_dataset(
        _spec(kind="choice", fields=Fields(problem="question")), tmp_path / "out.parquet", data_folder=tmp_path
    )
    (row,) = read_problems(tmp_path / "out.parquet")
    assert (row["problem"], row["answer"], row["order"]) == ("Which? A) 1 B) 2", "B", None)


def test_a_limit_asks_fewer_but_keeps_every_row(tmp_path: Path) -> None:
    _write(tmp_path)
    make_dataset(_spec(limit=2), tmp_path / "out.parquet", data_folder=tmp_path)
    assert len(read_problems(tmp_path / "out.parquet")) == 4  # all are kept out of training


def test_the_card_says_what_came_from_where(tmp_path: Path) -> None:
    path = _write(tmp_path, [*ROWS, {"id": 9, "question": "Prove it.", "answer": None}])
    out, spec = tmp_path / "out.parquet", _spec()
    make_dataset(spec, out, data_folder=tmp_path)
    assert json.loads(card_path(out).read_text()) == {
        "dataset": "set",
        "spec": spec.digest,
        "origin": f"set.jsonl, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
        "rows_in": 5,
        "rows_out": 5,
        "left": {},
        "without_answer": 1,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "asked": id_digest(["0", "1", "2", "3", "9"]),
    }


def test_separators_inside_a_text_dont_end_its_line(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_text('{"a": "x\u2028y\x85z"}\r\n\r\n{"a": "b"}\r\n', encoding="utf-8")
    assert read_rows(tmp_path / "set.jsonl") == [{"a": "x\u2028y\x85z"}, {"a": "b"}]


def test_awkward_text_survives(tmp_path: Path) -> None:
    texts = ["a\x00b", "\u05e9\u05dc\u05d5\u05dd 1 \u202e2", "x" * 1_000_000]
    _write(tmp_path, [{"question": t, "answer": t} for t in texts])
    make_dataset(_spec(fields=Fields(problem="question")), tmp_path / "out.parquet", data_folder=tmp_path)
    assert [r["problem"] for r in read_problems(tmp_path / "out.parquet")] == texts


CHOICE = {"kind": "choice", "fields": Fields(problem="question", choices="options")}
WRONG = {
    "rows": (ROWS, {"rows": 5}, ["4 rows instead of 5", "set.jsonl"]),
    "duplicate id": ([*ROWS, ROWS[0]], {}, ["id '0' is given to 2 rows", "set.jsonl"]),
    "missing field": ([ROWS[0], {"id": 0, "questions": "?", "answer": 1}], {},
                      ["'question' is missing", "row 2", "e.g. questions"]),
    "missing answer": ([{"id": 0, "question": "?"}], {}, ["'answer' is missing", "row 1"]),
    "blank problem": ([{"id": 0, "question": " ", "answer": 1}], {}, ["empty problem", "row 1", "'question'"]),
    "invisible problem": ([{"id": 0, "question": "\u200b\x00\ufeff", "answer": 1}], {}, ["empty problem", "row 1"]),
    "null problem": ([{"id": 0, "question": None, "answer": 1}], {}, ["empty problem", "row 1"]),
    "null id": ([ROWS[0], {"id": None, "question": "?", "answer": 1}], {}, ["empty id", "row 2"]),
    "nothing": ([], {}, ["no rows", "set.jsonl"]),
    "a lone surrogate": ([{"id": 0, "question": "?", "answer": "\ud800"}], {}, ["answer isn't Unicode", "row 1"]),
    "two options": ([{"question": "?", "options": ["a", "b"]}], CHOICE, ["2 options instead of 4", "row 1"]),
    "options as text": ([{"question": "?", "options": "abcd"}], CHOICE, ["aren't a list", "row 1"]),
    "a null option": ([{"question": "?", "options": ["a", None, "b", "c"]}], CHOICE, ["aren't a list", "row 1"]),
    "no such letter": ([{"question": "?", "answer": "E"}], {"kind": "choice", "fields": Fields(problem="question")},
                       ["'E' is none of A, B, C, D", "row 1"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_rows_are_named_and_nothing_is_written(tmp_path: Path, mistake: str) -> None:
    rows, changes, words = WRONG[mistake]
    _write(tmp_path, rows)
    out = tmp_path / "out.parquet"
    with pytest.raises(UserError) as error:
        make_dataset(_spec(**changes), out, data_folder=tmp_path)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.glob("*out*"))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path)
    path.write_text(path.read_text() + '{"id": 9, "question"')
    with pytest.raises(UserError, match=r"(?s)not readable as JSON.*set\.jsonl, line 5"):
        read_rows(path)
    parquet = _write(tmp_path, name="set.parquet")
    parquet.write_bytes(parquet.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"(?s)not a readable parquet.*set\.parquet"):
        read_rows(parquet)
    with pytest.raises(UserError, match=r"(?s)isn't there.*absent\.jsonl"):
        read_rows(tmp_path / "absent.jsonl")
    (tmp_path / "set.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"use \.jsonl"):
        read_rows(tmp_path / "set.csv")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(UserError, match="a folder, not a file"):
        read_rows(tmp_path / "folder.parquet")
    for name, text in (("a.json", '{"data": 1}'), ("b.json", "[1, 2]"), ("c.jsonl", "3\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="not a list of rows"):
            read_rows(tmp_path / name)
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UserError, match=r"(?s)not UTF-8.*latin\.jsonl, line 1"):
        read_rows(tmp_path / "latin.jsonl")


def test_problem_files_are_checked_when_they_are_read(tmp_path: Path) -> None:
    _write(tmp_path)
    out = tmp_path / "out.parquet"
    make_dataset(_spec(), out, data_folder=tmp_path)
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a whole parquet file"):
        read_problems(out)
    pd.DataFrame({"id": ["1"]}).to_parquet(out)
    with pytest.raises(UserError, match="column 'problem' is missing"):
        read_problems(out)
    with pytest.raises(UserError, match="no such problem file"):
        read_problems(tmp_path / "absent.parquet")


def test_a_folder_data_set_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data-folder"):
        make_dataset(_spec(), tmp_path / "out.parquet")


def test_a_folder_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)isn't there.*nowhere/set\.jsonl"):
        make_dataset(_spec(), tmp_path / "out.parquet", data_folder=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
