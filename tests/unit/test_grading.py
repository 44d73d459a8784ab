"""Promises of grading: every answer ends with one of five grades, whatever it is; nothing hangs, nothing is lost."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.grading import (
    GRADES,
    SETTINGS,
    Grader,
    GradingLimits,
    GradingSettings,
    Item,
    displayed,
    grade_answers,
)

SECONDS = 0.7
QUICK = GradingLimits(seconds=SECONDS, memory_mb=256)
PATIENT = GradingLimits(seconds=20)
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


def test_the_release_compares_strings_on_math500():
    assert SETTINGS["release-math500"] == GradingSettings(math="string")
    assert grade_answers([_math(r"\frac{84}{2}")], settings=SETTINGS["release-math500"])[0].grade == "wrong"


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
    assert time.monotonic() - start < 60  # a busy machine may start the worker anew; these would run for hours
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
    with Grader(1, GradingLimits(seconds=20, memory_mb=16)) as small:
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
                for worker in list(grader.pool._active):
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


def test_limits_and_settings_are_checked():
    with pytest.raises(UserError, match="must be positive"):
        GradingLimits(seconds=0)
    with pytest.raises(UserError, match="at least one worker"):
        Grader(0)
    with pytest.raises(UserError, match="did you mean 'math_verify'"):
        GradingSettings(math="math-verify")


def test_the_kernel_limits_workers_too(grader):
    """Beside the parent's limits: address space, and no byte written to any file."""
    grader.grade([_math(r"\frac{1}{9}")])
    soft, _ = resource.prlimit(grader.pool.pids()[0], resource.RLIMIT_AS)
    assert soft != resource.RLIM_INFINITY
    assert resource.prlimit(grader.pool.pids()[0], resource.RLIMIT_FSIZE) == (0, 0)
