"""Generated arithmetic: right answers, disjoint splits, nothing that the examples show."""

from pathlib import Path

import pytest

from ngrpo.data.generated import arithmetic, is_held_out, is_validation
from ngrpo.errors import UserError
from ngrpo.grading import Grader, Item
from ngrpo.study.config import load
from ngrpo.study.sources import ArithmeticProblems

ROOT = Path(__file__).resolve().parents[2]


def source(**changes: object) -> ArithmeticProblems:
    return ArithmeticProblems(**{"kind": "arithmetic", "count": 40, "held_out": True, "seed": 1, **changes})


def problems(of: ArithmeticProblems, shown: str = "") -> set[str]:
    return {row["problem"] for row in arithmetic(of, shown)}


def test_answers_are_right() -> None:
    rows = arithmetic(source(held_out=False, count=300))
    assert all(eval(row["problem"]) == int(row["answer"]) for row in rows)
    assert {row["problem"].split()[1] for row in rows} == {"+", "*"}


def test_splits_are_disjoint_whatever_the_seeds() -> None:
    training = problems(source(held_out=False, count=300))
    validation, benchmark = problems(source(validation=True, count=20, seed=2)), problems(source(count=20, seed=3))
    assert not training & validation
    assert not training & benchmark
    assert not validation & benchmark
    assert all(is_held_out(p) and is_validation(p) for p in validation)


def test_what_the_examples_show_is_not_asked() -> None:
    of = source(held_out=False, operations=("+",), largest=4, count=10)
    first = sorted(problems(of))[0]
    assert first not in problems(of.model_copy(update={"count": 9}), shown=f"{first} = 2\n")


def test_more_than_there_are_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="aren't 500 such problems"):
        arithmetic(source(count=500, largest=5))


def test_the_pocket_scale_s_problems_are_disjoint_and_not_shown() -> None:
    _, size = load(ROOT / "config", "pocket")
    sets = [size.datasets[name] for name in (size.training_data, size.validation, *size.benchmarks)]
    texts = [problems(s.source, s.examples) for s in sets]
    assert len(set.union(*texts)) == sum(map(len, texts)) == sum(s.source.count for s in sets)
    shown = {line.split(" =")[0] for s in sets for line in s.examples.splitlines()}
    assert len(shown) == 2
    assert not shown & set.union(*texts)


@pytest.mark.parametrize(
    ("response", "reason", "grade"),
    [
        (" 19", "stop", "correct"),
        (" 19\n", "stop", "correct"),
        ("19.0", "length", "correct"),
        (" 18", "stop", "wrong"),
        (" 19 or so", "stop", "no_answer"),
        (" 19 or", "length", "truncated"),
    ],
)
def test_a_number_is_graded_by_its_value(response: str, reason: str, grade: str) -> None:
    with Grader(workers=1) as grader:
        assert grader.grade([Item("a", response, "19", "number", reason)])[0].grade == grade


def test_a_reference_that_is_no_number_is_refused() -> None:
    with Grader(workers=1) as grader, pytest.raises(UserError, match="isn't a number: 'x'"):
        grader.grade([Item("a", "19", "x", "number")])
