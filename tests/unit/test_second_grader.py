"""Promises of the second grader: right on known answers, independent of the first, bounded, and its settings' way."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_tree import ROOT

from ngrpo.grading import SECOND, SETTINGS, Grade, Grader, GradingLimits, GradingSettings, Item, displayed
from ngrpo.grading.second import answer_in, choice_in, reference_choice, second_verdict

ANSWERS = Path(__file__).parent / "answers"
PATIENT = GradingLimits(seconds=20)
AMBIGUOUS = {"m120"}
"""Told apart by no convention: "100,200" as one number, and as two."""


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (ANSWERS / name).read_text(encoding="utf-8").splitlines()]


def pairs() -> list[tuple[str, str, bool]]:
    lines = (ANSWERS / "pairs.txt").read_text(encoding="utf-8").splitlines()[1:]
    return [(reference, answer, equal == "1") for reference, answer, equal in (line.split(" ; ") for line in lines)]


@pytest.fixture(scope="module")
def grader():
    with Grader(2, PATIENT) as shared:
        yield shared


def graded(grader: Grader, name: str, settings: GradingSettings, first: int | None = None) -> list[tuple[dict, Grade]]:
    read = rows(name)[:first]
    items = [Item(row["id"], row["response"], str(row["answer"]), row["kind"]) for row in read]
    return list(zip(read, grader.grade(items, settings=settings), strict=True))


def test_the_second_grader_is_right_on_answers_that_graders_got_wrong(grader):
    wrong = {row["id"] for row, grade in graded(grader, "verdicts.jsonl", SECOND) if grade.grade != row["expected"]}
    assert wrong <= AMBIGUOUS


def test_the_first_grader_would_fail_that_test(grader):
    verdicts = graded(grader, "verdicts.jsonl", SETTINGS["paper"], first=40)
    assert sum(grade.grade != row["expected"] for row, grade in verdicts) > 5


def test_pairs_of_every_kind_are_told_equal_or_not(grader):
    known = pairs()
    items = [Item(str(i), rf"\boxed{{{answer}}}", reference) for i, (reference, answer, _) in enumerate(known)]
    grades = grader.grade(items, settings=SECOND)
    wrong = [
        (pair, grade.grade)
        for pair, grade in zip(known, grades, strict=True)
        if grade.grade != ("correct" if pair[2] else "wrong")
    ]
    assert wrong == []


def test_math_verifys_own_suite_passes_with_its_own_extraction(grader):
    verdicts = graded(grader, "math_verify_suite.jsonl", SETTINGS["math-verify"])
    assert len(verdicts) == 95
    assert [row["id"] for row, grade in verdicts if (grade.grade == "correct") != row["right"]] == []


def test_the_last_box_alone_fails_that_suite(grader):
    """Negative control: the setting matters."""
    several = [row for row in rows("math_verify_suite.jsonl") if row["response"].count(r"\boxed") > 1]
    grades = grader.grade([Item(row["id"], row["response"], row["answer"]) for row in several])
    assert sum((grade.grade == "correct") != row["right"] for row, grade in zip(several, grades, strict=True)) > 5


def documented() -> list[list[str]]:
    """The rows of docs/grading.md's table of verdicts: kind, reference, answer, right, Math-Verify, second grader."""
    page = (ROOT / "docs" / "grading.md").read_text(encoding="utf-8")
    block = page.partition("<!-- verdicts -->\n```text\n")[2].partition("\n```")[0]
    return [[cell.strip() for cell in line.split(" | ")] for line in block.splitlines()[1:]]


def test_the_documented_verdicts_are_what_the_graders_say(grader):
    known = documented()
    items = [Item(row[0], rf"\boxed{{{row[2]}}}", row[1]) for row in known]
    first, second = grader.grade(items), grader.grade(items, settings=SECOND)
    said = [[displayed(a.grade), displayed(b.grade)] for a, b in zip(first, second, strict=True)]
    assert said == [row[4:] for row in known]
    assert all(row[3] != row[4] for row in known)
    assert sum(row[3] != row[5] for row in known) == len(AMBIGUOUS)


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def foreign(names: set[str]) -> set[str]:
    """Imports that would make the second grader depend on the first or on its libraries."""
    first = {n for n in names if n.startswith("ngrpo.grading") and not n.startswith("ngrpo.grading.second")}
    return first | {n for n in names if n.split(".")[0] in ("math_verify", "latex2sympy2_extended", "antlr4")}


def test_the_second_grader_shares_nothing_with_the_first():
    for path in (ROOT / "workflow" / "ngrpo" / "grading" / "second").glob("*.py"):
        assert foreign(imported(path)) == set(), path
    assert foreign(imported(ROOT / "workflow" / "ngrpo" / "grading" / "comparison.py")) == {"math_verify"}


@given(st.integers(-(10**6), 10**6), st.integers(1, 999), st.integers(1, 99))
def test_a_number_equals_itself_however_it_is_written(n, d, k):
    fraction = rf"\frac{{{n}}}{{{d}}}"
    assert second_verdict(fraction, f"{n}/{d}")
    assert second_verdict(fraction, rf"\dfrac{{{n * k}}}{{{d * k}}}")
    assert second_verdict(str(n), f"{n:,}")
    assert second_verdict(str(n), f"x = {n}.0")
    assert not second_verdict(fraction, rf"\frac{{{n + 1}}}{{{d}}}")
    assert not second_verdict(str(n), str(n + 1))


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_the_order_counts_in_tuples_alone(numbers, random):
    shuffled = numbers[:]
    random.shuffle(shuffled)
    plain, other = ", ".join(map(str, numbers)), ", ".join(map(str, shuffled))
    assert second_verdict(plain, other)
    assert second_verdict(rf"\{{{plain}\}}", other)
    assert second_verdict(f"({plain})", f"({other})") is (numbers == shuffled)


@given(st.text(max_size=200))
def test_any_text_gets_a_verdict_and_equals_itself(text):
    assert second_verdict("42", text) in (True, False)
    assert second_verdict(text, text) or not text.strip()


HOSTILE = [
    "9^{9^{9^{9}}}", "10^{10^{10}}", "100000000!", "((10!)!)!", "(" * 4000 + "1" + ")" * 4000, "9^" * 4000 + "9",
    r"\sqrt{" * 1200 + "2" + "}" * 1200, r"\frac{1}{2}+" * 800 + "1", r"\sum_{i=1}^{10000000} \frac{1}{i}",
    "1" * 9000, r"\text{" * 1500, "1,1," * 2400, "x<" * 4000, "__import__('os').abort()", "\x00\ud800", "1e999999999",
]  # fmt: skip


def test_hostile_answers_end_within_their_limits(grader):
    items = [Item(str(i), rf"\boxed{{{answer}}}", r"\frac{1}{3}") for i, answer in enumerate(HOSTILE)]
    with Grader(2, GradingLimits(seconds=1, memory_mb=256)) as limited:
        grades = limited.grade(items, settings=SECOND)
    assert {grade.grade for grade in grades} <= {"wrong", "grader_error", "no_answer"}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{8}. The box \boxed{} holds it.", "8"),
        (r"\boxed{1} \fbox{2}", "2"),
        (r"\boxed{5} then \boxed{\frac{1}{", "5"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\\boxed{8}", "8"),
        ("no box", None),
    ],
)
def test_the_last_box_that_holds_something_is_the_answer(text, answer):
    assert answer_in(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B.", "B"),
        ("**Answer: B**", "B"),
        ("Answer: **(B)**", "B"),
        ("Final Answer: b", "B"),
        ("Answer:\nB", "B"),
        ("Answer: A\nwait\nAnswer: B", "B"),
        ("the answer is (C).", "C"),
        (r"The answer is $\boxed{\text{D}}$", "D"),
        (r"\boxed{(B)}", "B"),
        ("Answer: B) spiro", "B"),
        ("Answer: J", "J"),
        ("Answer: \u200b\uff22", "B"),
        ('Answer: "B"', "B"),
        ("The correct option is B.", "B"),
        ("So the answer must be (B)", "B"),
        ("Because of this:\n(B)", "B"),
        ("Answer: A or B", None),
        ("Answer: A, B", None),
        ("I would pick B, a safe choice", None),
        ("the answer is a bit unclear", None),
        ("Answer: Because", None),
        (r"\boxed{12}", None),
        ("", None),
    ],
)
def test_a_choice_is_the_letter_that_is_stated(text, letter):
    assert choice_in(text) == letter


def test_references_of_choices_may_be_decorated():
    forms = ["B", "(b)", "B.", "$B$", r"\boxed{B}", r"\text{B}", "**B**", "B) spiro", "Because", "", "17"]
    assert [reference_choice(form) for form in forms] == ["B"] * 8 + [None] * 3
