"""The verdict rule against simulated studies whose truth is known: rarely wrong, and not blind."""

import numpy as np
import pytest
from scipy.special import expit

from ngrpo.statistics.decisions import VERDICTS, Effect, judge, over_problems, over_runs
from ngrpo.statistics.estimators import bootstrap_pass_at_k, unbiased_pass_at_k
from ngrpo.statistics.metrics import POWER

MEAN, PASS, RELEASE = unbiased_pass_at_k(32, 1), unbiased_pass_at_k(32, 32), bootstrap_pass_at_k(32, 32)
TESTS = {"mean": MEAN, "pass@32": PASS, "bootstrap": RELEASE}


def studies(
    g: np.ndarray,
    *,
    seeds: int = 3,
    sizes: tuple[int, ...] = (30, 40, 500),
    systems: int = 2,
    between_seeds: float = 0.1,
    level: float = 0.0,
    shift: float = 0.0,
    repetitions: int = 400,
    random: int = 0,
) -> list[list[np.ndarray]]:
    """Simulated studies: for each further system its differences from the first, (R, S, N) a benchmark.

    Log-odds of problem i under system m trained with seed s: level + problem (sd 2) + seed (sd between_seeds) +
    problem × system and problem × system × seed (sd 0.3 each) + shift for all but the first; 32 samples each.
    """
    rng = np.random.default_rng([random, seeds, *sizes])
    seed = rng.normal(0, between_seeds, (systems, repetitions, seeds, 1))
    differences: list[list[np.ndarray]] = [[] for _ in range(systems - 1)]
    for size in sizes:
        problem = rng.normal(level, 2, (repetitions, 1, size))
        own = rng.normal(0, 0.3, (systems, repetitions, 1, size)) + rng.normal(
            0, 0.3, (systems, repetitions, seeds, size)
        )
        values = [g[rng.binomial(32, expit(problem + seed[m] + own[m] + (shift if m else 0)))] for m in range(systems)]
        for m in range(1, systems):
            differences[m - 1].append(values[m] - values[0])
    return differences


def shares(verdicts: np.ndarray) -> dict[str, float]:
    return {name: float((verdicts == i).mean()) for i, name in enumerate(VERDICTS)}


def rates(g: np.ndarray, relevant: float = 0.02, **truth) -> dict[str, float]:
    """How often each verdict is given on "the second system is better"."""
    (differences,) = studies(g, **truth)
    return shares(judge([over_problems(differences)], [relevant], replicated=True))


@pytest.mark.parametrize("between_seeds", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("name", TESTS)
def test_where_nothing_differs_supported_and_contradicted_are_each_below_5_percent(name, seeds, between_seeds) -> None:
    for sizes, repetitions in (((30,), 1500), ((30, 40, 200), 600)):
        share = rates(TESTS[name], seeds=seeds, sizes=sizes, between_seeds=between_seeds, repetitions=repetitions)
        assert share["supported"] <= 0.05, (sizes, share)
        assert share["contradicted"] <= 0.05, (sizes, share)


@pytest.mark.parametrize("level", [-5.0, 4.0])
def test_that_holds_where_nearly_all_is_wrong_or_right(level: float) -> None:
    for g in TESTS.values():
        share = rates(g, level=level, sizes=(30,))
        assert share["supported"] <= 0.05
        assert share["contradicted"] <= 0.05


def test_an_interval_over_problems_alone_would_fail_this_test() -> None:
    (differences,) = studies(MEAN, sizes=(500,), between_seeds=0.4)
    over_these_seeds = over_problems(differences, trained=False)
    assert shares(judge([over_these_seeds], [0.02], replicated=True))["supported"] > 0.2


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_large_effect_is_supported_and_its_opposite_contradicted(seeds: int) -> None:
    assert rates(MEAN, seeds=seeds, shift=1.0)["supported"] >= 0.95
    assert rates(MEAN, seeds=seeds, shift=-1.0)["contradicted"] >= 0.95


def test_nothing_on_few_problems_is_underpowered_and_on_many_not_supported() -> None:
    few = rates(RELEASE, relevant=0.02, sizes=(30,))
    many = rates(MEAN, relevant=0.05, sizes=(500, 500), seeds=5, between_seeds=0.02)
    assert few["underpowered"] >= 0.95
    assert few["not supported"] <= 0.01
    assert many["not supported"] >= 0.9


def test_best_of_three_is_rarely_claimed_where_all_are_equal_and_not_where_one_rival_is() -> None:
    for shift in ((0.0, 0.0), (0.0, -1.5)):
        better = []
        for rival, down in zip(studies(MEAN, systems=3, random=4), shift, strict=True):
            better.append(over_problems([-d - down * 0.1 for d in rival]))
        assert shares(judge(better, [0.02] * 2, replicated=True))["supported"] <= 0.05


@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_a_difference_as_large_as_the_margin_is_rarely_called_similar(shift: float) -> None:
    (differences,) = studies(MEAN, sizes=(500,), seeds=5, between_seeds=0.02)
    margin = 0.03
    effect = over_problems([d + shift for d in differences])
    verdicts = judge([effect.moved(1, margin), effect.moved(-1, margin)], [margin] * 2, replicated=True)
    assert shares(verdicts)["supported"] <= 0.05
    same = over_problems(differences)
    verdicts = judge([same.moved(1, margin), same.moved(-1, margin)], [margin] * 2, replicated=True)
    assert shares(verdicts)["supported"] >= 0.9


def test_one_seed_never_supports_or_contradicts() -> None:
    for shift in (-2.0, 0.0, 2.0):
        (differences,) = studies(MEAN, seeds=1, shift=shift)
        verdicts = judge([over_problems(differences)], [0.02], replicated=False)
        assert shares(verdicts)["underpowered"] == 1.0


def test_equal_differences_are_no_certainty() -> None:
    for size, verdict in ((8, "underpowered"), (2000, "not supported")):
        effect = over_problems([np.zeros((3, size))])
        low, high = effect.interval()
        assert low < 0 < high
        assert effect.detectable > 0
        assert VERDICTS[int(judge([effect], [0.05], replicated=True))] == verdict
    saturated = over_problems([np.random.default_rng(1).normal(0, 1e-4, (3, 40))])
    assert saturated.detectable > 0.1  # all but solved by both: what 40 problems don't show is not excluded
    alike = over_problems([np.full((3, 40), 0.1)])
    assert alike.interval()[0] < 0.05
    few = over_problems([np.concatenate([np.ones((3, 4)), np.zeros((3, 496))], axis=1)])
    assert few.interval()[0] < 0  # 4 problems for, none against: p = 0.125 in the exact sign test
    many = over_problems([np.concatenate([np.ones((3, 12)), np.zeros((3, 488))], axis=1)])
    assert many.interval()[0] > 0


def test_what_is_detectable_is_detected_as_often_as_stated() -> None:
    (differences,) = studies(MEAN, sizes=(500,), seeds=5, between_seeds=0.3, repetitions=1000)
    size = float(np.median(over_problems(differences).detectable))
    verdicts = judge([over_problems([d + size for d in differences])], [size], replicated=True)
    assert shares(verdicts)["supported"] == pytest.approx(POWER, abs=0.1)


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
