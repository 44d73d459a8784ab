"""What a row's columns may hold: text and numbers keep their value, each other thing is refused by row and column."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngrpo.data.datasets import card_path, make_dataset, read_problems
from ngrpo.data.row_files import read_rows
from ngrpo.errors import UserError
from ngrpo.grading.extract import boxes
from ngrpo.study.sources import Dataset, Fields, FolderDataset
from ngrpo.study.specs import DatasetSpec


def _spec(file: str, **changes: Any) -> DatasetSpec:
    fields = Fields(**changes.pop("fields", {}))
    source = FolderDataset(kind="folder", file=file)
    return DatasetSpec(id="set", dataset=Dataset(source=source, fields=fields, instruction="", **changes))


def _made(folder: Path, rows: list[dict] | str | pa.Table, asked: bool = False, **changes: Any) -> list[dict]:
    """The problems of a set with these rows (JSONL's text, or a parquet file's table)."""
    file = folder / ("set.parquet" if isinstance(rows, pa.Table) else "set.jsonl")
    if isinstance(rows, pa.Table):
        pq.write_table(rows, file)
    else:
        file.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    make_dataset(_spec(file.name, **changes), folder / "out.parquet", data_folder=folder, asked=asked)
    return read_problems(folder / "out.parquet")


USER = {"role": "user", "content": "What is 1+1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
NESTED = {"prompt": [SYSTEM, USER], "reward_model": {"ground_truth": "2", "style": "rule"}}


def test_a_user_turn_alone_is_the_problem(tmp_path: Path) -> None:
    rows = [{"prompt": [USER], "answer": "2"}]
    assert _made(tmp_path, rows, fields={"problem": "prompt"})[0]["problem"] == "What is 1+1?"
    table = pa.Table.from_pylist(rows)
    assert _made(tmp_path, table, fields={"problem": "prompt"})[0]["problem"] == "What is 1+1?"


def test_names_joined_by_dots_lead_into_structs_and_lists(tmp_path: Path) -> None:
    fields = {"problem": "prompt.1.content", "answer": "reward_model.ground_truth"}
    for rows in ([NESTED], pa.Table.from_pylist([NESTED])):
        (row,) = _made(tmp_path, rows, fields=fields)
        assert (row["problem"], row["answer"]) == ("What is 1+1?", "2")
    plain = [{"a.b": "from the column of this name", "a": {"b": "from the struct"}, "answer": 1}]
    assert _made(tmp_path, plain, fields={"problem": "a.b"})[0]["problem"] == "from the column of this name"


REFUSED = {
    "messages": ({"problem": [SYSTEM, USER]}, ["the problem is a list of messages (system, user), not text", "row 1",
                                               "field 'problem'", "e.g. problem.1.content"]),
    "a turn of parts": ({"problem": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]}, ["not text"]),
    "a struct": ({"answer": {"ground_truth": "2", "style": "rule"}},
                 ["the answer is a struct with the fields ground_truth, style", "e.g. answer.ground_truth"]),
    "a list": ({"answer": ["2", "3"]}, ["the answer is a list of 2, not text", "e.g. answer.0"]),
    "true": ({"answer": True}, ["the answer is true or false, not text", "field 'answer'"]),
    "a number for a problem": ({"problem": 5}, ["the problem is a number, not text"]),
    "an infinite answer": ({"answer": math.inf}, ["the number is inf", "row 1, field 'answer'"]),
    "an endless number": ('{"problem": "?", "answer": 1e999999999}\n', ["more than 10000 digits", "row 1"]),
    "a wrong path": ([{**NESTED, "problem": "?"}], ["'reward_model.truth' is missing", "reward_model.ground_truth"],
                     {"answer": "reward_model.truth"}),
    "an id": ({"id": [1]}, ["the id is a list of 1"], {"id": "id"}),
    "a named solution": ({"solution": {"a": "b"}}, ["the solution is a struct"], {"solution": "solution"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_text_is_refused_by_row_column_and_kind(tmp_path: Path, kind: str) -> None:
    rows, words, *fields = REFUSED[kind]
    rows = [{"problem": "?", "answer": "1", **rows}] if isinstance(rows, dict) else rows
    with pytest.raises(UserError) as error:
        _made(tmp_path, rows, fields=fields[0] if fields else {})
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "out.parquet").exists()


def test_binary_columns_are_refused(tmp_path: Path) -> None:
    table = pa.table({"problem": pa.array([b"1+1?"], pa.binary()), "answer": ["2"]})
    with pytest.raises(UserError, match=r"(?s)problem is binary data, not text.*row 1.*export this column as text"):
        _made(tmp_path, table)
    assert _made(tmp_path, table.set_column(0, "problem", [["1+1?"]]))[0]["problem"] == "1+1?"


def test_a_solution_nobody_named_that_is_no_text_is_none(tmp_path: Path) -> None:
    assert _made(tmp_path, [{"problem": "?", "answer": 1, "solution": ["a"]}])[0]["solution"] is None


NUMBERS = {
    "27.0": "27", "0.1": "0.1", "0.10": "0.10", "1e3": "1000", "1E-7": "0.0000001", "-3": "-3", "1e22": "1" + "0" * 22,
    "9" * 5000: "9" * 5000, "0.12345678901234567890123": "0.12345678901234567890123", "-0.5": "-0.5", "NaN": None,
    '"0.10"': "0.10", '"1e3"': "1e3", '"007"': "007", "null": None,
}  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=lambda n: n[:20])
def test_a_number_as_reference_keeps_its_value(tmp_path: Path, number: str) -> None:
    assert _made(tmp_path, f'{{"problem": "?", "answer": {number}}}\n')[0]["answer"] == NUMBERS[number]


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([27, 9007199254740993], pa.int64()), ["27", "9007199254740993"]),
        (pa.array([27.0, 0.1], pa.float64()), ["27", "0.1"]),
        (pa.array([27.0, 0.1], pa.float32()), ["27", "0.1"]),
        (pa.array([1e16, None], pa.float64()), ["1" + "0" * 16, None]),
        (pa.array(["27.0", "0.10"]), ["27", "0.10"]),
    ],
)
def test_a_parquet_columns_numbers_keep_their_value(tmp_path: Path, column: pa.Array, texts: list) -> None:
    table = pa.table({"problem": ["a?", "b?"], "answer": column})
    assert [row["answer"] for row in _made(tmp_path, table)] == texts


OPTIONS = ["7", "8", "9", "B"]
RIGHT = {
    "its number": (1, "8"), "the first number": (0, "7"), "its letter": ("C", "9"), "in brackets": ("(c)", "9"),
    "its text": ("9", "9"), "the last letter": ("D", "B"),
}  # fmt: skip


@pytest.mark.parametrize("way", RIGHT)
def test_the_right_option_is_the_one_that_the_answer_names(tmp_path: Path, way: str) -> None:
    answer, right = RIGHT[way]
    rows = [{"question": f"Which, {i}?", "choices": OPTIONS, "answer": answer} for i in range(8)]
    fields = {"problem": "question", "choices": "choices"}
    for named in ({}, {"answer": "answer"}):
        for row in _made(tmp_path, rows, kind="choice", fields={**fields, **named}):
            assert f"{row['answer']}) {right}" in row["problem"].splitlines()
    # the control: that the first is right has to be said, or no answer to be there
    for row in _made(tmp_path, rows, kind="choice", fields={**fields, "answer": None}):
        assert f"{row['answer']}) 7" in row["problem"].splitlines()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (4, "no option has this number"),
        (-1, "no option has this number"),
        ("B", "'B' is more than one option"),  # its letter, or the fourth option's text
        ("10", "'10' is no option"),
        (["8"], "the answer is a list"),
    ],
)
def test_a_right_option_that_cant_be_told_is_refused(tmp_path: Path, answer: object, words: str) -> None:
    rows = [{"question": "Which?", "choices": OPTIONS, "answer": answer}]
    with pytest.raises(UserError, match=rf"(?s){words}.*row 1"):
        _made(tmp_path, rows, kind="choice", fields={"problem": "question", "choices": "choices"})


def test_options_in_a_struct_are_named_by_dots(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "o": {"A": "w", "B": "x", "C": "y", "D": "z"}, "key": "B"}]
    fields = {"problem": "question", "answer": "key"}
    with pytest.raises(UserError, match=r"name them: choices: \[o.A, o.B, o.C, o.D\]"):
        _made(tmp_path, rows, kind="choice", fields={**fields, "choices": "o"})
    names = ("o.A", "o.B", "o.C", "o.D")
    (row,) = _made(tmp_path, rows, kind="choice", fields={**fields, "choices": names})
    assert f"{row['answer']}) x" in row["problem"]


def test_a_solution_with_different_boxes_is_refused_unless_the_last_is_asked_for(tmp_path: Path) -> None:
    fields = {"answer": None, "solution": "solution"}
    rows = [{"problem": "?", "solution": "$x$ is \\boxed{1} or \\boxed{2}."}]
    with pytest.raises(UserError, match=r"(?s)2 different boxes: \\boxed\{1\}, \\boxed\{2\}.*row 1.*boxes: last"):
        _made(tmp_path, rows, fields=fields)
    assert _made(tmp_path, rows, fields={**fields, "boxes": "last"})[0]["answer"] == "2"
    same = [{"problem": "?", "solution": "So \\boxed{ 1 } or \\boxed{\\boxed{1}}: \\boxed{1}"}]
    assert _made(tmp_path, same, fields=fields)[0]["answer"] == "1"


def test_every_box_is_seen_once() -> None:
    assert boxes("\\boxed{1} {\\boxed{\\frac{1}{2}}} \\boxed{\\boxed{3}} \\boxed{ } \\boxed{4") == [
        "1",
        "\\frac{1}{2}",
        "3",
        "",
    ]
    assert boxes("none") == []


def test_problems_that_are_asked_need_answers_that_can_be_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"problem": f"{i}?", "answer": answer} for i, answer in enumerate(("1", None, "", "\\frac{"))]
    with pytest.raises(UserError, match=r"(?s)2 of 4 problems have no answer.*: 00001, 00002"):
        _made(tmp_path, rows, asked=True)
    assert len(_made(tmp_path, rows)) == 4  # to train on, they are left out later
    _made(tmp_path, [rows[0], rows[3]], asked=True)
    assert "can't match the answer of 00001: no response" in capsys.readouterr().out
    assert json.loads(card_path(tmp_path / "out.parquet").read_text())["ungradable"] == ["00001"]
    _made(tmp_path, [rows[0]], asked=True)
    assert json.loads(card_path(tmp_path / "out.parquet").read_text())["ungradable"] == []


# --- files ---


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", '{"a": "b"}\n'), ("a.json", '[{"a": "b"}]')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_rows(tmp_path / name) == [{"a": "b"}]


def test_packed_json_is_read_and_other_packed_files_are_named(tmp_path: Path) -> None:
    for name, text in (("a.jsonl.gz", '{"a": "b"}\n'), ("a.json.gz", '[{"a": "b"}]')):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
        assert read_rows(tmp_path / name) == [{"a": "b"}]
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(UserError, match="not readable"):
        read_rows(tmp_path / "a.jsonl.gz")
    (tmp_path / "a.jsonl").write_bytes(whole)
    with pytest.raises(UserError, match="this is gzip, whatever its name says"):
        read_rows(tmp_path / "a.jsonl")
    for name in ("a.jsonl.zst", "a.zip", "a.csv.gz"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match="unpack it"):
            read_rows(tmp_path / name)


BOMBS = {
    "nested lists": ("a.jsonl", ("[" * 100_000 + "]" * 100_000).encode(), "nested too deep"),
    "nested structs": ("a.json", ('{"a":' * 100_000 + "1" + "}" * 100_000).encode(), "nested too deep"),
    "an exponent out of range": ("a.jsonl", b'{"a": 1e99999999999999999999}', "out of range"),
    "packed zeros": ("a.jsonl.gz", gzip.compress(bytes(70 * 2**20)), "unpacks to more than 64 MB"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_a_message(tmp_path: Path, bomb: str) -> None:
    name, content, words = BOMBS[bomb]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_rows(tmp_path / name)


def test_a_small_parquet_file_cant_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array(["x" * 100_000] * 4000)}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="unpacks to more than"):
        read_rows(path)


def test_a_device_is_no_file_of_rows() -> None:
    with pytest.raises(UserError, match="no regular file"):
        read_rows(Path("/dev/null"))
