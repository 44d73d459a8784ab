"""The toy task: right traces, one kind of error, disjoint splits."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.data.toy import draw, is_held_out, is_validation, make_problems, solve, trace
from ngrpo.errors import UserError
from ngrpo.study.sources import ToyProblems


def _boxed(text: str) -> int:
    return int(re.search(r"\\boxed\{(\d+)\}$", text)[1])


@given(st.integers(0, 10_000))
def test_worked_solutions_end_in_the_result(seed: int) -> None:
    problem = draw(random.Random(seed), (2, 3))
    assert _boxed(trace(problem)) == solve(problem)
    assert 0 <= solve(problem) <= 99


@given(st.integers(0, 10_000))
def test_a_sloppy_trace_only_forgets_carries_that_are_needed(seed: int) -> None:
    problem = draw(random.Random(seed), (2, 3))
    right, sloppy = trace(problem), trace(problem, random.Random(seed), forget=1.0)
    assert "c1" not in sloppy
    assert ("c1" in right) or sloppy == right
    assert (_boxed(sloppy) - solve(problem)) % 10 == 0  # the units digit never suffers


def _source(**changes) -> ToyProblems:
    return ToyProblems(**{"kind": "toy", "count": 60, "held_out": True, "seed": 1, **changes})


def test_splits_are_disjoint_and_seeds_fix_them() -> None:
    splits = [_source(held_out=False), _source(validation=True), _source()]
    texts = [{r["problem"] for r in make_problems(s)} for s in splits]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]
    assert not any(is_held_out(p) for p in texts[0])
    assert all(is_held_out(p) and is_validation(p) for p in texts[1])
    assert make_problems(splits[0]) == make_problems(splits[0])
    assert make_problems(_source(seed=2)) != make_problems(_source())


def test_more_problems_than_there_are_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="hasn't 100000"):
        make_problems(_source(count=100_000, terms=(2, 2)))
