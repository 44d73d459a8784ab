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
from click.testing import CliRunner

from ngrpo.cli import main
from ngrpo.cli.graded import CONVENTIONS
from ngrpo.errors import UserError
from ngrpo.grading import (
    SETTINGS,
    GradingLimits,
    GradingSettings,
    Item,
    ResponseFields,
    grade_answers,
    grade_file,
    grade_samples,
)

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
        ([{**ROW, "finish_reason": "abort"}], r"no finish_reason 'abort'"),
        ([{**ROW, "answer": {"ground_truth": "27"}}], r"(?s)'answer' must be.*--answer-field answer.ground_truth"),
        ([{**ROW, "answer": []}], r"'answer' must be a string or a number"),
        ([{**ROW, "id": [1]}], r"'id' must be a string or a number"),
        ([ROW, {**ROW, "id": 1}], r"id '1' is already on line 1\n.*line 2"),
        ([ROW, "{broken"], r"not readable as JSON.*\n.*line 2"),
        (["[" * 100_000], r"nested too deep"),
        (["[1]"], r"must be a JSON object"),
        ([], r"holds no rows"),
    ],
)
def test_an_unusable_file_says_what_and_where_and_writes_nothing(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        grade_file(_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert os.listdir(tmp_path) == ["in.jsonl"]


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ids_stay_what_they_were_and_a_byte_order_mark_is_no_matter(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{**ROW, "id": 1, "problem_id": "p"}, {**ROW, "id": "2"}, {**ROW, "id": 2.5}]
    source.write_text("\ufeff" + "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    grade_file(source, out)
    assert [row["id"] for row in written(out)] == [1, "2", 2.5]
    assert [row.get("problem_id") for row in written(out)] == ["p", None, None]


@pytest.mark.parametrize(
    ("reason", "grade"),
    [("eos", "no_answer"), ("", "no_answer"), (None, "no_answer"), ("STOP", "no_answer"), ("max_tokens", "truncated")],
)
def test_finish_reasons_of_other_engines_are_understood(tmp_path, reason, grade):
    source = _jsonl(tmp_path / "in.jsonl", [{**ROW, "response": "cut", "finish_reason": reason}])
    assert grade_file(source, tmp_path / "out.jsonl") == {grade: 1}


def test_several_references_are_accepted_and_fields_may_lie_anywhere(tmp_path):
    rows = [
        {"uid": 7, "output": r"\boxed{\frac{1}{2}}", "reward_model": {"ground_truth": ["3", "0.5"]}},
        {"uid": 8, "output": r"\boxed{4}", "reward_model": {"ground_truth": ["3", "0.5"]}},
        {"uid": 9, "output": r"\boxed{4}", "reward_model.ground_truth": 4},
    ]
    fields = ResponseFields("uid", "output", "reward_model.ground_truth", "math")
    counts = grade_file(_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "o", limits=PATIENT, fields=fields)
    assert [row["grade"] for row in written(tmp_path / "o")] == ["correct", "wrong", "correct"]
    assert counts == {"correct": 2, "wrong": 1}


def test_the_second_graders_verdicts_come_on_request(tmp_path):
    rows = [{**ROW, "response": r"\boxed{27.}"}, {**ROW, "id": "2", "response": r"\boxed{26}"}]
    counts = grade_file(_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "o", limits=PATIENT, second=True)
    assert [(row["grade"], row["second_grade"]) for row in written(tmp_path / "o")] == [
        ("wrong", "correct"),
        ("wrong", "wrong"),
    ]
    assert (counts, counts.second, counts.differ) == ({"wrong": 2}, {"correct": 1, "wrong": 1}, 1)


@pytest.mark.parametrize("place", ["same", "other way", "link", "hard link", "device", "folder", "pipe"])
def test_an_output_that_isnt_ones_own_file_is_refused_and_nothing_is_touched(tmp_path, place):
    source = _jsonl(tmp_path / "in.jsonl", [ROW])
    former, out = source.read_bytes(), tmp_path / "out"
    if place in ("same", "other way"):
        out = source if place == "same" else tmp_path / ".." / tmp_path.name / "in.jsonl"
    elif place == "link":
        out.symlink_to(tmp_path / "elsewhere")
    elif place == "hard link":
        out.hardlink_to(source)
    elif place == "device":
        out = Path("/dev/null")
    elif place == "folder":
        out.mkdir()
    else:
        os.mkfifo(out)
    listed = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match="the output is"):
        grade_file(source, out)
    assert (source.read_bytes(), sorted(os.listdir(tmp_path))) == (former, listed)
    assert not out.is_file() or place in ("same", "other way", "hard link")


def test_samples_are_never_replaced_by_their_grades(tmp_path):
    paths = _parquets(tmp_path)
    for path in paths:
        with pytest.raises(UserError, match="the output is the input"):
            grade_samples(*paths, path)


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
    first = {"grade": "correct", "extracted": r"\frac{1}{2}", "reason": None}
    second = {f"second_{name}": value for name, value in first.items()}
    assert rows[0] == {"problem_id": "p1", "sample": 0, **first, "spec": "abc", **second}
    assert counts == {"correct": 2, "wrong": 1, "truncated": 1}
    assert (counts.second, counts.differ) == (counts, 0)


@pytest.mark.parametrize(
    ("samples", "problems", "message"),
    [
        ({"problem_id": ["p1", "p1", "p2", "p3"]}, None, r"no problem 'p3'\n.*row 3"),
        ({"sample": [0, 0, 0, 1]}, None, r"sample 0 of problem 'p1' occurs twice\n.*row 1"),
        ({"text": None}, None, r"column 'text' is missing\n.*samples.parquet"),
        ({"text": ["a", None, "b", "c"]}, None, r"field 'text' is missing\n.*row 1"),
        ({"problem_id": [1, 1, 2, 2]}, None, r"'problem_id' holds int64, not text\n.*samples.parquet"),
        ({"text": [b"a", b"b", b"c", b"d"]}, None, r"'text' holds binary, not text"),
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


def test_the_command_grades_with_its_defaults(tmp_path):
    """Without --workers: one a core."""
    out = tmp_path / "out.jsonl"
    ended = CliRunner().invoke(main, ["grade", str(_jsonl(tmp_path / "in.jsonl", [ROW])), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert json.loads(out.read_text())["grade"] == "correct"


def test_a_summary_ends_the_command_and_progress_goes_to_stderr(tmp_path):
    rows = [{**ROW, "id": i, "response": rf"\boxed{{\frac{{{i}}}{{2}}}}"} for i in range(1, 5)]
    rows += [{**ROW, "id": 5, "response": "cut", "finish_reason": "length"}]
    words = ["grade", str(_jsonl(tmp_path / "in.jsonl", rows)), "--out", str(tmp_path / "o"), "--second"]
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    assert lines[0] == "accuracy 0.0 % (95 % interval 0.0 to 43.4, each answer on its own)"
    assert lines[1] == "  5 answers: 0 correct, 4 wrong, 0 no answer, 1 truncated, 0 grader error"
    assert "second grader: accuracy 0.0 %" in lines[2]
    assert lines[-2:] == ["the two graders differ on 0 answers", f"wrote {tmp_path / 'o'}"]


@pytest.mark.parametrize(
    ("words", "reference", "response", "grades"),
    [
        (["--boxes", "all"], "1, 2", r"\boxed{1} and \boxed{2}", "wrong correct"),
        (["--convention", "math-verify"], "1, 2", r"$\boxed{1}$, $\boxed{2}$", "wrong correct"),
        (["--tolerance", "0.01"], "3.14", r"\boxed{\pi}", "wrong correct"),
        (["--tolerance", "0.01"], "100", r"\boxed{102}", "wrong wrong"),
        (["--tolerance", "0.05"], "100", r"\boxed{102}", "wrong correct"),
        (["--sets-equal-relations"], "(0,1)", r"\boxed{0<x<1}", "wrong correct"),
        (["--comparison", "second"], "5", r"\boxed{5.}", "wrong correct"),
        (["--convention", "release-math500"], r"\frac{1}{2}", r"\boxed{\frac{2}{4}}", "correct wrong"),
        (["--convention", "release-gpqa", "--kind", "choice"], "B", "I pick (B).", "no_answer correct"),
        (["--choice", "lenient", "--letters", "ABCDEFGHIJ"], "J", "so\n(J)", "no_answer correct"),
        (["--longest", "5"], "1", r"\boxed{1+1+1-1-1}", "correct grader_error"),
    ],
)
def test_each_setting_can_be_chosen_and_changes_nothing_unless_it_is(tmp_path, words, reference, response, grades):
    kind = "choice" if reference in "BJ" else "math"
    source = _jsonl(tmp_path / "in.jsonl", [{"id": 1, "response": response, "answer": reference, "kind": kind}])
    unset, chosen = grades.split()
    letters = "ABCDEFGHIJ" if "--letters" in words else "ABCD"
    item = Item("1", response, reference, kind)
    assert grade_answers([item], 1, PATIENT, GradingSettings(letters=letters))[0].grade == unset
    ended = CliRunner().invoke(main, ["grade", str(source), "--out", str(tmp_path / "o"), "--workers", "1", *words])
    assert ended.exit_code == 0, ended.output
    assert written(tmp_path / "o")[0]["grade"] == chosen


def invoked(*words: object) -> str:
    ended = CliRunner().invoke(main, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_show_and_diff_take_any_systems_files(tmp_path):
    """show: responses, whole; diff: what grade wrote of them, with Pass@k where problems have several rows."""
    for name, answers in (("a", "7 7 8 9"), ("b", "8 8 7 7")):
        rows = [
            {**ROW, "id": i, "problem_id": f"p{i // 2}", "response": 80 * "long\n" + rf"\boxed{{{x}}}", "answer": "7"}
            for i, x in enumerate(answers.split())
        ]
        invoked("grade", _jsonl(tmp_path / f"{name}.jsonl", rows), "--out", tmp_path / f"{name}.graded.jsonl")
    shown = invoked("show", tmp_path / "a.jsonl", "p0")
    assert shown.count(80 * "long\n" + r"\boxed{7}") == 2
    assert "2 samples: 2 correct" in shown
    assert "reference 7" in shown
    compared = invoked("diff", tmp_path / "a.graded.jsonl", tmp_path / "b.graded.jsonl")
    assert "Pass@2" in compared
    assert "2 of 2 problems changed, 2 of them flipped" in compared


@pytest.mark.parametrize(
    ("command", "rows", "message"),
    [
        ("show", [ROW], "there is no response '2'"),
        ("diff", [ROW], "a row of grades needs id and grade"),
        ("diff", [{"id": 1, "grade": "corect"}], "did you mean 'correct'"),
        ("diff", [], "holds no rows"),
    ],
)
def test_files_that_show_and_diff_cannot_use_are_named(tmp_path, command, rows, message):
    source = _jsonl(tmp_path / "in.jsonl", rows)
    ended = CliRunner().invoke(main, [command, str(source), "2" if command == "show" else str(source)])
    assert ended.exit_code == 1
    assert message in ended.output
    assert "in.jsonl" in ended.output


def test_the_command_knows_the_conventions():
    assert set(CONVENTIONS) == set(SETTINGS)


@pytest.mark.parametrize("size", [0, 3, 200, -1])
def test_a_truncated_parquet_is_named(tmp_path, size):
    samples, problems = _parquets(tmp_path)
    samples.write_bytes(samples.read_bytes()[:size])
    with pytest.raises(UserError, match=r"not a readable parquet file.*\n.*samples.parquet"):
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
