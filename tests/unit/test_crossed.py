"""A comparison of two systems: what bad and degenerate input gets, and an independent check of its error."""

import numpy as np
import pytest
from scipy.special import expit

from ngrpo.errors import UserError
from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.fitting import Scores, fitted
from ngrpo.statistics.multiplicity import Look, add_look, any_time_p, holm, spent
from ngrpo.statistics.pairing import correlation, pairs
from ngrpo.statistics.pass_rates import GRID, SHAPES, LogitNoise, estimators, expected
from ngrpo.statistics.simulation import simulate

GS = estimators(32)
MEAN = GS["Mean@32"]


def counts(seeds: int = 3, problems: int = 30, seed: int = 0, effect: float = 0.3) -> PairedCounts:
    shape = fitted(Scores(30, 0.2135, ((16, 0.4361), (32, 0.4731))))
    drawn = simulate(shape, problems, seeds, 1, np.random.default_rng(seed), effect=effect)
    return PairedCounts(drawn.a[0], drawn.b[0], 32)


def test_the_error_over_problems_and_seeds_is_that_of_the_pigeonhole_bootstrap() -> None:
    """Owen 2007: resample both seeds and problems; its variance counts the rest up to three times."""
    rng, pair = np.random.default_rng(1), counts(seeds=8, problems=60)
    d = MEAN[pair.a] - MEAN[pair.b]
    means = [d[np.ix_(rng.integers(0, 8, 8), rng.integers(0, 60, 60))].mean() for _ in range(4000)]
    own = d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()
    rest = (own**2).sum() / (7 * 59)
    # the bootstrap's expectation, from the layout's mean squares: Owen's Theorem 4.1 for S rows and N columns
    by_seed, by_problem = d.mean(1).var(ddof=1), d.mean(0).var(ddof=1)
    expected_variance = by_seed * 7 / 64 + by_problem * 59 / 3600 + rest * 7 * 59 / (64 * 3600)
    assert np.var(means) == pytest.approx(expected_variance, rel=0.1)
    effect = compare_systems([pair], MEAN)
    variance = sum(float(arm.error) ** 2 for arm in effect.of(QUESTIONS[1]))
    assert variance == pytest.approx(by_seed / 8 + max(0.0, by_problem - rest / 8) / 60)
    assert np.var(means) > variance > 0.6 * np.var(means)  # the bootstrap counts the rest up to three times


@pytest.mark.parametrize("name", GS)
@pytest.mark.parametrize("right", [0, 32])
@pytest.mark.parametrize("seeds", [1, 2, 3, 30])
def test_all_right_or_all_wrong_is_no_certainty(name: str, right: int, seeds: int) -> None:
    same = np.full((seeds, 30), right)
    effect = compare_systems([PairedCounts(same, same, 32)], GS[name])
    for question in QUESTIONS:
        low, high = effect.interval(question=question)
        assert effect.estimate == 0
        assert low < 0 < high
        assert effect.p(question) == 1
    assert effect.interval(question=QUESTIONS[1])[1] > 0.1  # one of ten may differ


def test_two_problems_can_be_compared_and_say_little() -> None:
    effect = compare_systems([counts(seeds=3, problems=2)], MEAN)
    low, high = effect.interval(question=QUESTIONS[1])
    assert np.isfinite([low, high]).all()
    assert high - low > 0.02


def test_base_systems_need_no_seeds_and_what_they_share_is_estimated() -> None:
    rng = np.random.default_rng(2)
    chances = rng.uniform(0.2, 0.8, 200)
    uniform = rng.uniform(size=(200, 32))
    a, b = uniform < chances[:, None], np.where(rng.uniform(size=(200, 32)) < 0.7, uniform, rng.uniform(size=(200, 32)))
    b = b < chances[:, None]
    shared = pairs(a, b)
    assert correlation(shared, MEAN, MEAN) == pytest.approx(0.7, abs=0.05)
    pair = PairedCounts(a.sum(1)[None], b.sum(1)[None], 32, shared)
    apart = PairedCounts(pair.a, pair.b, 32)
    known, assumed = (compare_systems([p], MEAN, trained=(False, False)).arms[0].error for p in (pair, apart))
    true = np.sqrt(2 * (1 - 0.7) * (chances * (1 - chances)).mean() / 32 / 200)
    assert known == pytest.approx(true, rel=0.1)
    assert assumed > 1.5 * known
    turned = PairedCounts(pair.b, pair.a, 32, pairs(b, a))
    assert compare_systems([turned], MEAN, trained=(False, False)).arms[0].error == pytest.approx(known)
    same = PairedCounts(pair.a, pair.a, 32, pairs(a, a))
    assert compare_systems([same], MEAN, trained=(False, False)).arms[0].error > 0  # no certainty


def test_what_pass_at_k_shares_is_less_than_what_counts_share() -> None:
    """Pass@k isn't linear in a count: with the counts' correlation its intervals would cover too little."""
    rng, g, one = np.random.default_rng(3), GS["Pass@32 unbiased"], np.linspace(-5.0, 1.0, 60)
    other, table = one + rng.normal(0, 0.3, 60), expected(g)
    truth = float((np.interp(one, GRID, table) - np.interp(other, GRID, table)).mean())
    inside, too_narrow, runs = 0, 0, 80
    for _ in range(runs):
        u = rng.uniform(size=(60, 32))
        v = np.where(rng.uniform(size=u.shape) < 0.8, u, rng.uniform(size=u.shape))
        a, b = u < expit(one)[:, None], v < expit(other)[:, None]
        shared = pairs(a, b)
        effect = compare_systems([PairedCounts(a.sum(1)[None], b.sum(1)[None], 32, shared)], g, (False, False))
        narrower = np.sqrt((1 - correlation(shared, MEAN, MEAN)) / (1 - correlation(shared, g, g)))
        half, error = 1.96 * float(effect.arms[0].error), abs(float(effect.estimate) - truth)
        inside += error <= half
        too_narrow += error <= half * narrower
    assert inside / runs >= 0.89
    assert too_narrow < inside


def test_a_base_systems_own_samples_count_beside_the_seeds_of_the_trained_one() -> None:
    """Its samples are the same in every difference: seeds alone would miss them."""
    shape, noise, studies = SHAPES["mass at 0 and 1"], LogitNoise(run=0.02, method_problem=0.0, run_problem=0.0), 200
    drawn = simulate(shape, 60, 10, studies, np.random.default_rng(3), noise=noise)
    truth = 0.0
    table = expected(MEAN, 0.0)
    assert table[0] < 0.01
    inside, alone = 0, 0
    for a, b in zip(drawn.a, drawn.b, strict=True):
        effect = compare_systems([PairedCounts(a, b[:1], 32)], MEAN, trained=(True, False))
        low, high = effect.interval()
        inside += low <= truth <= high
        seeds = effect.arms[0]
        alone += abs(effect.estimate) <= 2.26 * seeds.error
    assert inside / studies >= 0.91
    assert alone / studies < 0.8


def test_one_seed_tells_of_this_run_alone() -> None:
    effect = compare_systems([counts(seeds=1)], MEAN)
    assert all(np.isinf(arm.freedom) for arm in effect.arms)  # its samples, no seeds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.ones((2, 30), dtype=int)}, "one system has 3 training seeds, the other 2"),
        ({"b": np.ones((3, 29), dtype=int)}, "differ in problems: 30 and 29"),
        ({"b": np.full((3, 30), 33)}, "33 correct of 32 samples"),
        ({"a": np.ones((3, 1), dtype=int), "b": np.ones((3, 1), dtype=int)}, "fewer than two problems"),
        ({"n": 16}, "for 32 samples a problem, the counts for 16"),
    ],
)
def test_what_cant_be_paired_says_why(change: dict, message: str) -> None:
    pair = counts()
    with pytest.raises(UserError, match=message):
        compare_systems([PairedCounts(**{"a": pair.a, "b": pair.b, "n": 32, **change})], MEAN)


def test_a_base_system_has_one_evaluation() -> None:
    with pytest.raises(UserError, match="isn't trained has 3 evaluations"):
        compare_systems([counts()], MEAN, trained=(True, False))


def test_turning_an_effect_turns_its_interval() -> None:
    effect = compare_systems([counts(effect=1.0)], MEAN)
    for question in QUESTIONS:
        low, high = effect.interval(question=question)
        lower, higher = effect.moved(-1, 0.1).interval(question=question)
        assert (lower, higher) == pytest.approx((0.1 - high, 0.1 - low))
        assert effect.moved(-1, 0.0).one_sided_p(question) == pytest.approx(1 - effect.one_sided_p(question))


# --- many claims, many looks ---


def test_holm_is_holms() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("looks", [[1], [2, 2, 2, 2], [3, 5, 10], [10, 9, 11], range(1, 400)])
def test_looks_never_spend_more_than_there_is(looks) -> None:
    shares = spent(list(looks))
    assert shares[0] == 0.5
    assert all(share > 0 for share in shares)
    assert sum(shares) <= 1


def look(p: float, *seeds: str) -> Look:
    return Look(seeds, p)


def test_the_first_look_is_the_ordinary_two_sided_p() -> None:
    assert any_time_p([look(0.02, "a", "b")]) == pytest.approx(0.04)


def test_a_later_look_pays_and_an_earlier_one_keeps_what_it_saw() -> None:
    looks = [look(0.001, "a", "b"), look(0.02, "a", "b", "c", "d")]
    assert any_time_p(looks) == pytest.approx(0.002)
    assert any_time_p([look(0.5, "a", "b"), look(0.005, "a", "b", "c", "d")]) == pytest.approx(0.005 / 0.25)


def test_a_look_at_changed_data_counts_no_longer_and_stays_spent() -> None:
    looks = [look(0.001, "a", "b"), look(0.02, "x", "b")]
    assert any_time_p(looks) == pytest.approx(0.02 / (0.5 * (1 - 2 / 3)))


def test_looking_again_at_the_same_is_no_new_look() -> None:
    first = look(0.02, "a", "b")
    assert add_look([first], first) == [first]
    assert len(add_look([first], look(0.02, "a", "b", "c"))) == 2
