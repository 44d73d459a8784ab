"""The verdict rule against simulated studies whose truth is known: rarely wrong, and not blind. How intervals cover:
test_statistics.py."""

import numpy as np
import pytest
from scipy.special import expit

from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.decisions import VERDICTS, judge, over_runs, verdict, weigh
from ngrpo.statistics.effects import POWER, QUESTIONS, Arm, Effect
from ngrpo.statistics.pass_rates import LogitNoise, Shape, estimators
from ngrpo.statistics.simulation import policies, simulate_average

MEAN = estimators(32)["Mean@32"]
SHAPE = Shape(((1.0, 0.0, 2.0),))
NO_METHOD = LogitNoise(method_problem=0.0)
"""What a method makes of these problems is its effect on them: without it, equal systems are equal on these."""


def effect(
    *,
    seeds: int = 3,
    sizes: tuple[int, ...] = (30, 40, 200),
    shift: float = 0.0,
    noise: LogitNoise = NO_METHOD,
    studies: int = 300,
) -> Effect:
    """Simulated studies of two systems, the first better by `shift` log-odds."""
    cells = [(SHAPE, size) for size in sizes]
    drawn = simulate_average(cells, seeds, studies, np.random.default_rng([seeds, *sizes]), effect=shift, noise=noise)
    return compare_systems([PairedCounts(d.a, d.b, 32) for d in drawn], MEAN)


def shares(verdicts: np.ndarray) -> dict[str, float]:
    return {name: float((verdicts == i).mean()) for i, name in enumerate(VERDICTS)}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("seeds", [2, 5])
def test_where_nothing_differs_supported_and_contradicted_are_rare(seeds: int, question: str) -> None:
    share = shares(judge([effect(seeds=seeds)], [0.02], True, question))
    assert share["supported"] <= 0.05
    assert share["contradicted"] <= 0.05


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_large_effect_is_supported_and_its_opposite_contradicted(question: str) -> None:
    for shift, name in ((1.0, "supported"), (-1.0, "contradicted")):
        assert shares(judge([effect(seeds=5, shift=shift)], [0.02], True, question))[name] >= 0.95


def test_nothing_on_few_problems_is_underpowered_and_on_many_not_supported() -> None:
    quiet = LogitNoise(run=0.02, method_problem=0.0)
    few = shares(judge([effect(sizes=(30,))], [0.02], True))
    many = shares(judge([effect(sizes=(500, 500), seeds=5, noise=quiet)], [0.05], True))
    assert few["underpowered"] >= 0.9
    assert many["not supported"] >= 0.9


def test_best_of_three_is_rarely_claimed_where_one_rival_is_equal() -> None:
    rng, noise = np.random.default_rng(4), LogitNoise()
    base = SHAPE.draw(rng, (300, 200))
    counts = [
        rng.binomial(32, expit(policies(base + shift, rng.normal(0, 0.1, (300, 4)), rng, noise)[1]))
        for shift in (0.0, 0.0, -1.5)
    ]
    better = [compare_systems([PairedCounts(counts[0], rival, 32)], MEAN) for rival in counts[1:]]
    assert shares(judge(better, [0.02] * 2, True, QUESTIONS[1]))["supported"] <= 0.05


@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_a_difference_as_large_as_the_margin_is_rarely_called_similar(shift: float) -> None:
    same, margin = effect(sizes=(500,), seeds=5, noise=LogitNoise(run=0.02, method_problem=0.0)), 0.03
    moved = same.moved(1, shift)
    verdicts = judge([moved.moved(1, margin), moved.moved(-1, margin)], [margin] * 2, True)
    assert shares(verdicts)["supported"] <= 0.05
    verdicts = judge([same.moved(1, margin), same.moved(-1, margin)], [margin] * 2, True)
    assert shares(verdicts)["supported"] >= 0.9


def test_one_seed_never_supports_or_contradicts() -> None:
    for shift in (-2.0, 0.0, 2.0):
        verdicts = judge([effect(seeds=1, shift=shift, studies=10)], [0.02], replicated=False)
        assert shares(verdicts)["underpowered"] == 1.0


def test_what_is_shown_alone_and_not_after_adjustment_is_underpowered() -> None:
    alone = weigh([(Effect(np.float64(2.2), (Arm(np.float64(1.0), np.inf),)), 1.0)])
    assert VERDICTS[int(verdict(alone, True))] == "supported"
    assert VERDICTS[int(verdict(alone, True, (0.2, 1.0)))] == "underpowered"


def test_what_is_detectable_is_detected_as_often_as_stated() -> None:
    same = effect(sizes=(500,), seeds=8)
    size = float(np.median(same.detectable()))
    assert shares(judge([same.moved(1, size)], [size], True))["supported"] == pytest.approx(POWER, abs=0.1)


def test_the_mean_of_a_log_counts_steps_that_hang_together_as_few() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (300, 400))
    drift = np.stack([np.convolve(row, np.ones(20) / np.sqrt(20), "same") for row in noise])

    def covered(effect: Effect) -> bool:
        low, high = effect.interval()
        return bool(low <= 0 <= high)

    assert np.mean([covered(over_runs([row])) for row in drift]) >= 0.88
    assert np.mean([covered(over_runs(list(rows))) for rows in drift.reshape(100, 3, 400)]) >= 0.93
    plain = [abs(row.mean()) < 1.96 * row.std() / np.sqrt(len(row)) for row in drift]
    assert np.mean(plain) < 0.7
