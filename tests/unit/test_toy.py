"""The toy task: right traces, one kind of error, disjoint splits."""

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.data.generated import is_held_out, is_validation
from ngrpo.data.toy import draw, make_problems, solve, trace
from ngrpo.errors import UserError
from ngrpo.study.sources import ToyProblems


def _boxed(text: str) -> int:
    return int(re.search(r"\\boxed\{(\d+)\}$", text)[1])


@given(st.integers(0, 10_000))
def test_worked_solutions_end_in_the_result(seed: int) -> None:
    problem = draw(random.Random(seed), (2, 3))
    assert _boxed(trace(problem)) == solve(problem)


@given(st.integers(0, 10_000))
def test_every_partial_result_has_at_most_two_digits(seed: int) -> None:
    terms = re.findall(r"[+-]?\d\d", draw(random.Random(seed), (2, 4)))
    assert 2 <= len(terms) <= 4
    assert all(0 <= sum(map(int, terms[:n])) <= 99 for n in range(1, len(terms) + 1))


def _by_hand(problem: str, flags: list[int]) -> str:
    """The trace that these carry flags lead to."""
    first, *rest = re.findall(r"[+-]?\d\d", problem)
    tens, units, text = int(first[0]), int(first[1]), ""
    for term, flag in zip(rest, flags, strict=True):
        sign = -1 if term[0] == "-" else 1
        units, tens = (units + sign * int(term[2])) % 10, (tens + sign * (int(term[1]) + flag)) % 10
        text += f"c{flag}{units}{tens}"
    return f"<think>{text}</think>\\boxed{{{tens}{units}}}"


def _flags(text: str) -> list[int]:
    return [int(flag) for flag in re.findall(r"c([01])", text)]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_sloppy_trace_only_forgets_carries_that_are_needed_and_follows_them(seed: int, forget: float) -> None:
    problem = draw(random.Random(seed), (2, 3))
    right, sloppy = trace(problem), trace(problem, random.Random(seed), forget, forget)
    assert all(theirs <= needed for theirs, needed in zip(_flags(sloppy), _flags(right), strict=True))
    assert sloppy == _by_hand(problem, _flags(sloppy))
    assert (forget < 1) or not any(_flags(sloppy))
    assert (forget > 0) or sloppy == right
    if len(_flags(right)) == 1:  # of two, a forgotten carry and a forgotten borrow can make up for each other
        assert (_boxed(sloppy) == solve(problem)) == (sloppy == right)


def test_a_trace_by_hand() -> None:
    assert trace("47+38-16") == "<think>c158c196</think>\\boxed{69}"
    assert trace("47+38-16", random.Random(0), 1.0, 1.0) == "<think>c057c096</think>\\boxed{69}"


def test_borrows_are_forgotten_as_often_as_is_asked_and_carries_are_not() -> None:
    """The weakness that makes some problems nearly out of the base model's reach. 4000 tries: errors of 0.02."""
    rng, tries = random.Random(0), 4000
    for text, chance in (("47+38", 0.6), ("72-38", 0.1)):
        right = sum(trace(text, rng, forget=0.4, forget_borrows=0.9) == trace(text) for _ in range(tries))
        assert abs(right / tries - chance) < 0.03
    assert trace("47+38", rng, forget=0.0, forget_borrows=1.0) == trace("47+38")
    assert trace("72-38", rng, forget=1.0, forget_borrows=0.0) == trace("72-38")


def _source(**changes) -> ToyProblems:
    return ToyProblems(**{"kind": "toy", "count": 60, "held_out": True, "seed": 1, **changes})


def test_splits_are_disjoint_and_seeds_fix_them() -> None:
    splits = [_source(held_out=False), _source(validation=True), _source()]
    texts = [{r["problem"] for r in make_problems(s)} for s in splits]
    assert [len(t) for t in texts] == [60, 60, 60]  # distinct
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]
    assert not any(is_held_out(p) for p in texts[0])
    assert all(is_held_out(p) and is_validation(p) for p in texts[1])
    assert make_problems(splits[0]) == make_problems(splits[0])
    assert make_problems(_source(seed=2)) != make_problems(_source())


def test_more_problems_than_there_are_is_a_clear_error_and_soon() -> None:
    start = time.process_time()
    with pytest.raises(UserError, match="aren't 100000 such problems"):
        make_problems(_source(count=100_000, terms=(2, 2)))
    assert time.process_time() - start < 30
