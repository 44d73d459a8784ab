"""Promises of grading: every answer ends with one of five grades, whatever it is; nothing hangs, nothing is lost."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngrpo.errors import UserError
from ngrpo.grading import (
    GRADES,
    SETTINGS,
    Grader,
    Item,
    Limits,
    Settings,
    displayed,
    grade_answers,
    grade_file,
    grade_samples,
    settings_for,
)

SECONDS = 0.7
QUICK = Limits(seconds=SECONDS, memory_mb=256)
PATIENT = Limits(seconds=20)
TOWER = r"9^{9^{9^{9}}}"


def _math(answer: str, gold: object = "42", finish: str | None = "stop") -> Item:
    return Item("x", rf"so \boxed{{{answer}}}", str(gold), "math", finish)


@pytest.fixture(scope="module")
def grader():
    with Grader(1, QUICK) as shared:
        yield shared


@pytest.fixture(scope="module")
def patient():
    with Grader(1, PATIENT) as shared:
        yield shared


# --- the five grades ---


def test_the_five_grades_are_five_different_things(grader):
    items = [
        _math("42"),
        _math("41"),
        Item("x", "I don't know", "42", "math", "stop"),
        Item("x", "let me think about", "42", "math", "length"),
        _math(TOWER),
    ]
    assert tuple(grade.grade for grade in grader.grade(items)) == GRADES
    assert displayed("no_answer") == "no answer"


def test_a_response_cut_off_after_its_answer_is_graded(grader):
    assert [g.grade for g in grader.grade([_math("42", finish="length"), _math("41", finish="length")])] == [
        "correct",
        "wrong",
    ]


@pytest.mark.parametrize(
    ("gold", "answer", "grade"),
    [
        ("27.0", "27", "correct"),
        (27.0, "27", "correct"),
        ("27", "27.0", "correct"),
        ("$27$", r"\frac{54}{2}", "correct"),
        (r"\boxed{27.0}", r"\frac{54}{2}", "correct"),
        (r"\frac{1}{2}", "0.5", "correct"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)", "correct"),
        ("x^2+2x+1", "(x+1)^2", "correct"),
        ("27", "27.1", "wrong"),
        (r"\frac{1}{2}", "0.51", "wrong"),
        ("x^2+1", "x^2", "wrong"),
    ],
)
def test_mathematics_is_compared_by_value(patient, gold, answer, grade):
    assert patient.grade([_math(answer, gold)])[0].grade == grade


def test_choices_need_the_asked_line_unless_read_leniently():
    items = [Item("a", "Answer: B", "B", "choice"), Item("b", r"\boxed{B}", "B", "choice", "stop")]
    assert [g.grade for g in grade_answers(items)] == ["correct", "no_answer"]
    assert [g.grade for g in grade_answers(items, settings=SETTINGS["release-gpqa"])] == ["correct", "correct"]


def test_the_release_departs_on_two_benchmarks():
    assert settings_for("release", "MATH500") == Settings(math="string")
    assert settings_for("release", "gpqa-diamond") == Settings(choice="lenient")
    assert settings_for("release", "aime24") == settings_for("paper", "math500") == Settings()
    assert grade_answers([_math(r"\frac{84}{2}")], settings=SETTINGS["release-math500"])[0].grade == "wrong"
    with pytest.raises(UserError, match="did you mean 'release'"):
        settings_for("relaese")


# --- hostile answers ---

HOSTILE = {
    "tower": TOWER,
    "power": r"10^{10^{10}}",
    "factorial": "100000000!",
    "factorial of a factorial": "((10!)!)!",
    "braces": "{" * 4000 + "42" + "}" * 4000,
    "parentheses": "(" * 4000 + "42" + ")" * 4000,
    "roots": r"\sqrt{" * 1200 + "2" + "}" * 1200,
    "megabyte": "1" * 1_000_000,
    "megabyte of LaTeX": r"\frac{1}{2}+" * 90_000 + "1",
    "NUL": "\x00" * 50,
    "surrogate": "\ud800\udfff\udc00",
    "right-to-left": "\u202e42\u202c ארבעים ושתיים",
    "expansion": r"(x+1)^{100000}",
    "sum": r"\sum_{i=1}^{1000000000} \frac{1}{i^3}",
    "python": "__import__('os').system('touch EXECUTED')",
    "python in text": r"\text{__import__('pathlib').Path('EXECUTED').touch()}",
    "python expression": "[open('EXECUTED','w') for _ in range(1)]",
    "shell": "$(touch EXECUTED)`touch EXECUTED`; touch EXECUTED",
    "lambda": "(lambda: exec(\"open('EXECUTED','w')\"))()",
    "TeX": r"\write18{touch EXECUTED}\input{/etc/passwd}",
}
NEED_A_LIMIT = ("tower", "power", "factorial", "factorial of a factorial", "megabyte", "megabyte of LaTeX")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_ends_within_its_limit_and_executes_nothing(name, grader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grader.grade([_math(r"\frac{1}{3}")])  # the workers run
    start = time.monotonic()
    grade = grader.grade([_math(HOSTILE[name])])[0]
    assert time.monotonic() - start < 4 * SECONDS + 1.5
    assert grade.grade in ("wrong", "grader_error", "correct")
    assert (grade.grade == "grader_error") == (grade.reason is not None)
    assert "EXECUTED" not in os.listdir(tmp_path)
    if name in NEED_A_LIMIT:
        assert grade.grade == "grader_error"
        assert "over the limit" in grade.reason or "over the time limit" in grade.reason


def test_the_executing_answers_would_execute_in_a_python_that_evaluates_them(tmp_path):
    """Negative control: the canary works where an answer is run."""
    subprocess.run([sys.executable, "-c", HOSTILE["python"]], cwd=tmp_path, check=True)
    assert "EXECUTED" in os.listdir(tmp_path)


def test_an_answer_that_eats_memory_is_an_error_and_not_wrong():
    with Grader(1, Limits(seconds=20, memory_mb=16)) as small:
        grade = small.grade([_math(r"(x+1)^{100000}", "x^2+1")])[0]
    assert (grade.grade, grade.reason) == ("grader_error", "over the memory limit of 16 MB")


def test_hostile_answers_cost_the_others_nothing():
    gold = r"\frac{1}{3}"
    items = []
    for i in range(300):
        hostile = i % 100 == 50
        items.append(_math(rf"{TOWER}+{i}" if hostile else rf"\frac{{{i % 7}}}{{{3 * (i % 5 + 1)}}}", gold))
    grades = grade_answers(items, 2, QUICK)
    for i, grade in enumerate(grades):
        if i % 100 == 50:
            assert grade.grade == "grader_error"
        else:
            assert grade.grade == ("correct" if (i % 7) == (i % 5 + 1) else "wrong")


def test_no_response_at_all_and_odd_endings(grader):
    responses = ["", "\\boxed{", "\\boxed{42", "}" * 10_000, "\\boxed{}", "\ud800", "\x00"]
    assert {g.grade for g in grader.grade([Item("x", r, "42") for r in responses])} == {"no_answer"}
    assert grader.grade([_math("41"), Item("x", r"\boxed{41} no: \boxed{42}", "42")])[1].grade == "correct"


# --- workers ---


def _mixture() -> list[Item]:
    golds = [r"\frac{1}{2}", "x^2", "(1,2)", r"\sqrt{2}", r"50\%", "7"]
    answers = [
        "0.5",
        r"\frac{2}{4}",
        "x^{2}",
        "x*x",
        "(1, 2)",
        r"\{1,2\}",
        r"2^{1/2}",
        "1.41421356",
        "50",
        "7",
        "A or B",
    ]
    return [_math(a, g) for g in golds for a in answers for _ in range(3)]


def test_grades_depend_neither_on_the_workers_nor_on_the_order():
    items = _mixture()
    one = grade_answers(items, 1, PATIENT)
    assert {g.grade for g in one} >= {"correct", "wrong"}
    assert grade_answers(items, 3, PATIENT) == one
    assert grade_answers(items[::-1], 2, PATIENT)[::-1] == one


def test_equal_pairs_are_graded_once(patient):
    counted = []
    items = [_math(r"\frac{22}{7}", r"\pi")] * 500 + [_math(r"\frac{22}{7}", r"\pi+0")]
    patient.grade(items, lambda done, total: counted.append((done, total)))
    assert counted == [(1, 2), (2, 2)]
    patient.grade(items, lambda done, total: counted.append((done, total)))
    assert len(counted) == 2


def test_integers_and_choices_start_no_worker():
    with Grader(2) as lazy:
        lazy.grade([_math("42"), _math("43"), Item("x", "Answer: A", "A", "choice")])
        assert lazy.pool.pids() == []


@pytest.mark.parametrize("victim", ["worker", "launcher", "all"])
def test_a_process_killed_from_outside_loses_nothing(victim):
    items = [_math(rf"\frac{{{i}}}{{{i + 1}}}", r"\frac{1}{2}") for i in range(150)]
    with Grader(2, PATIENT) as steady:
        expected = steady.grade(items)
    with Grader(2, PATIENT) as grader:
        grader.grade([_math(r"\frac{1}{5}")])

        struck = []

        def strike(done: int, _: int) -> None:
            if done < 40 or struck:
                return
            struck.extend(grader.pool.pids())
            if victim != "worker":
                struck.append(grader.pool._launcher.pid)
            for pid in struck if victim != "launcher" else struck[-1:]:
                os.kill(pid, signal.SIGKILL)

        assert grader.grade(items, strike) == expected
        assert struck
        assert set(grader.pool.pids()).isdisjoint(struck)
        assert grader.grade([_math(r"\frac{2}{7}", r"\frac{4}{14}")])[0].grade == "correct"


def test_a_pair_whose_worker_always_dies_is_an_error():
    with Grader(1, PATIENT) as grader:
        grader.grade([_math(r"\frac{1}{5}")])
        done = threading.Event()

        def hunt() -> None:
            while not done.is_set():
                for worker in list(grader.pool._crew):
                    if worker.pair is not None:
                        os.kill(worker.pid, signal.SIGKILL)
                time.sleep(0.002)

        hunter = threading.Thread(target=hunt)
        hunter.start()
        grade = grader.grade([_math(r"\sum_{i=1}^{1000000000} \frac{1}{i^3}", "x")])[0]
        done.set()
        hunter.join()
    assert grade.grade == "grader_error"
    assert "died 2 times" in grade.reason


def _gone(pid: int) -> bool:
    """Whether the process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_workers_end_with_their_grader_even_when_it_is_killed():
    program = (
        "import time\n"
        "from ngrpo.grading import Grader, Item\n"
        "g = Grader(2)\n"
        "g.grade([Item('x', r'\\boxed{\\frac{%d}{3}}' % i, 'x') for i in range(9)])\n"
        "print(g.pool._launcher.pid, *g.pool.pids(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        assert not any(_gone(pid) for pid in pids)
        process.kill()
    deadline = time.monotonic() + 10
    while not all(_gone(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(_gone(pid) for pid in pids)


def test_neither_the_package_nor_a_worker_imports_torch_or_ray():
    program = (
        "import sys, ngrpo.grading, ngrpo.grading.worker as w; w.math_verify_verdict(*w.WARM_UP[0]);"
        "print([m for m in ('torch', 'ray', 'pandas', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- files ---


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
        ([{**ROW, "kind": "maths"}], r"no kind 'maths'\n.*line 1\n.*did you mean 'math'"),
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


@pytest.mark.parametrize("kept", [0, 3, 200, -1])
def test_a_truncated_parquet_is_named(tmp_path, kept):
    samples, problems = _parquets(tmp_path)
    samples.write_bytes(samples.read_bytes()[:kept])
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
        "import sys; from ngrpo.grading import grade_samples, Limits; grade_samples(*sys.argv[1:], limits=Limits(20))"
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


def test_limits_and_settings_are_checked():
    with pytest.raises(UserError, match="must be positive"):
        Limits(seconds=0)
    with pytest.raises(UserError, match="at least one worker"):
        Grader(0)
    with pytest.raises(UserError, match="did you mean 'math_verify'"):
        Settings(math="math-verify")


def test_the_kernel_limits_workers_too(grader):
    """The net below the parent's watch: address space, and no byte written to any file."""
    grader.grade([_math(r"\frac{1}{9}")])
    soft, _ = resource.prlimit(grader.pool.pids()[0], resource.RLIMIT_AS)
    assert soft != resource.RLIM_INFINITY
    assert resource.prlimit(grader.pool.pids()[0], resource.RLIMIT_FSIZE) == (0, 0)
