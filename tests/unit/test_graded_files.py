"""Promises of graded files: other systems' outputs and this study's samples; whole or absent, mistakes named."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngrpo.errors import UserError
from ngrpo.grading import GradingLimits, grade_file, grade_samples

PATIENT = GradingLimits(seconds=20)


def _jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


ROW = {"id": "1", "response": r"\boxed{27}", "answer": "27.0", "kind": "math"}


def test_any_systems_jsonl_is_graded(tmp_path):
    rows = [
        ROW,
        {**ROW, "id": 2, "answer": 27.0},
        {**ROW, "id": 3, "answer": 27},
        {**ROW, "id": "4", "response": "", "finish_reason": "length"},
        {**ROW, "id": "5", "response": "Answer: D", "answer": "D", "kind": "choice"},
        {**ROW, "id": "6", "response": "\\boxed{\ud800}"},
    ]
    counts = grade_file(_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", limits=PATIENT)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["grade"] for row in written] == ["correct", "correct", "correct", "truncated", "correct", "wrong"]
    assert all(list(row) == ["id", "grade", "extracted", "reason"] for row in written)
    assert counts == {"correct": 4, "truncated": 1, "wrong": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {k: v for k, v in ROW.items() if k != "answer"}], r"field 'answer' is missing\n.*line 2"),
        ([ROW, ROW], r"id '1' is already on line 1\n.*line 2"),
        ([{**ROW, "kind": "mathe"}], r"no kind 'mathe'\n.*line 1\n.*did you mean 'math'"),
        ([{**ROW, "kind": "choice"}], r"one of A to D, not '27.0'\n.*item '1'"),
        ([{**ROW, "answer": ""}], r"reference answer is empty\n.*item '1'"),
        ([{**ROW, "answer": True}], r"'answer' must be a string or a number"),
        ([{**ROW, "response": 5}], r"'response' must be a string"),
        ([{**ROW, "finish_reason": "eos"}], r"no finish_reason 'eos'"),
        ([ROW, "{broken"], r"not readable as JSON.*\n.*line 2"),
        (["[" * 100_000], r"not readable as JSON"),
        (["[1]"], r"must be a JSON object"),
        ([], r"holds no rows"),
    ],
)
def test_an_unusable_file_says_what_and_where_and_writes_nothing(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        grade_file(_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        grade_file(tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        grade_file(tmp_path / "bytes.jsonl", tmp_path / "out.jsonl")


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    source = _jsonl(tmp_path / "in.jsonl", [{**ROW, "id": str(i)} for i in range(100)])
    (tmp_path / "out.jsonl").write_text("the former grades\n")
    program = (
        "import sys, resource; from ngrpo.grading import grade_file; from ngrpo.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: grade_file(sys.argv[1], sys.argv[2])\n"
        "except UserError as e: print(e); sys.exit(1)\n"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not be written: File too large" in done.stdout
    assert "out.jsonl" in done.stdout
    assert (tmp_path / "out.jsonl").read_text() == "the former grades\n"
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


def _parquets(folder: Path, samples: dict | None = None, problems: dict | None = None) -> tuple[Path, Path]:
    default_samples = {
        "problem_id": ["p1", "p1", "p2", "p2"],
        "sample": [0, 1, 0, 1],
        "text": [r"\boxed{\frac{1}{2}}", r"\boxed{0.4}", "Answer: B", "cut"],
        "finish_reason": ["stop", "stop", "stop", "length"],
        "tokens": [5, 5, 5, 9],
        "seed": [1, 2, 3, 4],
        "spec": ["abc"] * 4,
    }
    default_problems = {
        "id": ["p1", "p2"],
        "problem": ["?", "?"],
        "answer": ["0.5", "B"],
        "solution": [None, None],
        "kind": ["math", "choice"],
    }
    paths = folder / "samples.parquet", folder / "problems.parquet"
    for path, columns in zip(
        paths, ({**default_samples, **(samples or {})}, problems or default_problems), strict=True
    ):
        pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), path)
    return paths


def test_samples_are_graded_against_their_problems(tmp_path):
    counts = grade_samples(*_parquets(tmp_path), tmp_path / "grades.parquet", limits=PATIENT)
    rows = pq.read_table(tmp_path / "grades.parquet").to_pylist()
    assert [row["grade"] for row in rows] == ["correct", "wrong", "correct", "truncated"]
    assert rows[0] == {
        "problem_id": "p1",
        "sample": 0,
        "grade": "correct",
        "extracted": r"\frac{1}{2}",
        "reason": None,
        "spec": "abc",
    }
    assert counts == {"correct": 2, "wrong": 1, "truncated": 1}


@pytest.mark.parametrize(
    ("samples", "problems", "message"),
    [
        ({"problem_id": ["p1", "p1", "p2", "p3"]}, None, r"no problem 'p3'\n.*row 3"),
        ({"sample": [0, 0, 0, 1]}, None, r"sample 0 of problem 'p1' occurs twice\n.*row 1"),
        ({"text": None}, None, r"column 'text' is missing\n.*samples.parquet"),
        ({"text": ["a", None, "b", "c"]}, None, r"field 'text' is missing\n.*row 1"),
        ({"finish_reason": ["stop", "stop", "stop", "abort"]}, None, r"no finish_reason 'abort'\n.*row 3"),
        (None, {"id": ["p1", "p1"], "answer": ["1", "2"], "kind": ["math"] * 2}, r"id 'p1' occurs twice\n.*row 1"),
        (None, {"id": ["p1", "p2"], "answer": ["1", None], "kind": ["math"] * 2}, r"'answer' is missing\n.*row 1"),
        (None, {"id": ["p1", "p2"], "kind": ["math"] * 2}, r"column 'answer' is missing\n.*problems.parquet"),
        (None, {"id": ["p1", "p2"], "answer": ["1", "2"], "kind": ["math", "mth"]}, r"no kind 'mth'\n.*row 1"),
    ],
)
def test_unusable_samples_say_what_and_where(tmp_path, samples, problems, message):
    with pytest.raises(UserError, match=message):
        grade_samples(*_parquets(tmp_path, samples, problems), tmp_path / "grades.parquet")
    assert sorted(os.listdir(tmp_path)) == ["problems.parquet", "samples.parquet"]


@pytest.mark.parametrize("size", [0, 3, 200, -1])
def test_a_truncated_parquet_is_named(tmp_path, size):
    samples, problems = _parquets(tmp_path)
    samples.write_bytes(samples.read_bytes()[:size])
    with pytest.raises(UserError, match=r"not a whole parquet file.*\n.*samples.parquet"):
        grade_samples(samples, problems, tmp_path / "grades.parquet")


def test_grading_killed_at_any_moment_ends_in_the_same_file(tmp_path):
    golds = [rf"\frac{{{i}}}{{7}}" for i in range(30)]
    columns = {
        "problem_id": [f"p{i % 30}" for i in range(240)],
        "sample": [i // 30 for i in range(240)],
        "text": [rf"\boxed{{\frac{{{i}}}{{{7 * (1 + i % 3)}}}}}" for i in range(240)],
        "finish_reason": ["stop"] * 240,
        "tokens": [9] * 240,
        "seed": list(range(240)),
        "spec": ["s"] * 240,
    }
    problems = {"id": [f"p{i}" for i in range(30)], "answer": golds, "kind": ["math"] * 30}
    paths = _parquets(tmp_path, columns, problems)
    grade_samples(*paths, tmp_path / "undisturbed.parquet", limits=PATIENT)
    program = (
        "import sys; from ngrpo.grading import grade_samples, GradingLimits;"
        "grade_samples(*sys.argv[1:], limits=GradingLimits(20))"
    )
    command = [sys.executable, "-c", program, *map(str, paths), str(tmp_path / "grades.parquet")]
    grades, moments, killed = tmp_path / "grades.parquet", random.Random(1), 0
    while killed < 20:
        process = subprocess.Popen(command)
        try:
            process.wait(timeout=moments.uniform(0.05, 1.2))
            assert grades.read_bytes() == (tmp_path / "undisturbed.parquet").read_bytes()
            grades.unlink()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            assert not grades.exists() or grades.read_bytes() == (tmp_path / "undisturbed.parquet").read_bytes()
            grades.unlink(missing_ok=True)
    subprocess.run(command, check=True)
    assert grades.read_bytes() == (tmp_path / "undisturbed.parquet").read_bytes()
