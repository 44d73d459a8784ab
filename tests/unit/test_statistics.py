"""A part of `make simulate`: intervals cover, verdicts rarely err, power is as predicted. All: docs/statistics.md."""

import numpy as np
import pytest
from scipy import stats

from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.effects import QUESTIONS, Effect
from ngrpo.statistics.fitting import Scores, fitted
from ngrpo.statistics.multiplicity import holm, spent
from ngrpo.statistics.pass_rates import SHAPES, LogitNoise, estimators, expected
from ngrpo.statistics.prediction import Asked, Planned, draw_problems, fewest, power_curve, smallest_effect
from ngrpo.statistics.simulation import Drawn, simulate, simulate_average

AIME25 = fitted(Scores(30, 0.2135, ((16, 0.4361), (32, 0.4731))))
MATH500 = fitted(Scores(500, 0.7561, ((16, 0.8943), (32, 0.9032))))
PAPER = "fitted to the paper"
ALL = {PAPER: AIME25, **SHAPES}
STUDIES = 400
ERROR = 100 * np.sqrt(0.95 * 0.05 / STUDIES)
"""Standard error of a coverage of 95 %, in points."""


def drawn(shape: str, seeds: int, problems: int = 30, **truth) -> Drawn:
    return simulate(ALL[shape], problems, seeds, STUDIES, np.random.default_rng([seeds, problems]), **truth)


def compared(study: Drawn, name: str) -> Effect:
    return compare_systems([PairedCounts(study.a, study.b, 32)], estimators(32)[name])


def coverage(effect: Effect, question: str, truth: np.ndarray | float, shrink: float = 1.0) -> float:
    low, high = effect.interval(question=question)
    middle = effect.estimate
    inside = (middle + shrink * (low - middle) <= truth) & (truth <= middle + shrink * (high - middle))
    return 100 * float(inside.mean())


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("shape", ALL)
def test_both_intervals_cover_what_they_state(shape: str, seeds: int) -> None:
    study = drawn(shape, seeds, effect=0.3)
    for name in estimators(32):
        effect = compared(study, name)
        for question, truth in zip(QUESTIONS, (study.these[name], study.all[name]), strict=True):
            covered = coverage(effect, question, truth)
            assert covered >= 93 - 2 * ERROR, (name, question)
            if seeds > 2 and shape == PAPER:
                assert covered <= 97 + 2 * ERROR, (name, question)


def test_intervals_two_thirds_as_wide_miss_the_promise() -> None:
    study = drawn(PAPER, 5, effect=0.3)
    assert coverage(compared(study, "Mean@32"), QUESTIONS[0], study.these["Mean@32"], 0.67) < 93 - 2 * ERROR


@pytest.mark.parametrize(
    "noise", [LogitNoise(tails=4), LogitNoise(shared=0.5), LogitNoise(run=0.4), LogitNoise(run=0.0, run_problem=0.0)]
)
def test_they_cover_under_noise_of_other_kinds(noise: LogitNoise) -> None:
    study = drawn(PAPER, 5, effect=0.3, noise=noise)
    for name in ("Mean@32", "Pass@32 unbiased"):
        effect = compared(study, name)
        for question, truth in zip(QUESTIONS, (study.these[name], study.all[name]), strict=True):
            assert coverage(effect, question, truth) >= 93 - 2 * ERROR, (name, question)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("shape", ALL)
def test_a_system_is_rarely_called_better_than_it_is(shape: str, seeds: int) -> None:
    study = drawn(shape, seeds)
    for name in estimators(32):
        for question, truth in zip(QUESTIONS, (study.these[name], study.all[name]), strict=True):
            low, _ = compared(study, name).moved(1, -truth).interval(question=question)
            assert 100 * (low > 0).mean() <= 5 + ERROR, (name, question)


def test_problems_alone_or_seeds_alone_would_call_it_better_too_often() -> None:
    """Negative control: seeds' error alone doesn't answer the question about other problems."""
    study = drawn(PAPER, 10, noise=LogitNoise(run=0.0, method_problem=1.0, run_problem=0.0))
    effect = compared(study, "Mean@32")
    assert coverage(effect, QUESTIONS[0], study.all["Mean@32"]) < 80
    assert coverage(effect, QUESTIONS[1], study.all["Mean@32"]) >= 93 - 2 * ERROR


@pytest.mark.parametrize("name", estimators(32))
@pytest.mark.parametrize("shape", ALL)
def test_intervals_get_narrower_with_every_seed(shape: str, name: str) -> None:
    """Where nothing differs, too: noise that averages out isn't taken for problems that nobody can tell apart."""
    study = simulate(ALL[shape], 30, 30, 60, np.random.default_rng(6), noise=LogitNoise(method_problem=0.0))
    for question in QUESTIONS:
        widths = []
        for seeds in (2, 3, 5, 10, 30):
            part = Drawn(study.a[:, :seeds], study.b[:, :seeds], {}, {})
            low, high = compared(part, name).interval(question=question)
            widths.append(float((high - low).mean()))
        assert widths == sorted(widths, reverse=True), (question, widths)


def test_the_interval_on_problems_like_these_holds_that_on_these() -> None:
    effect = compared(drawn(PAPER, 2), "Mean@32")
    (low, high), (lower, higher) = (effect.interval(question=q) for q in QUESTIONS)
    assert (lower <= low).all()
    assert (high <= higher).all()


@pytest.mark.parametrize("question", QUESTIONS)
def test_p_is_one_minus_the_confidence_of_the_interval_that_reaches_0(question: str) -> None:
    effect = compared(drawn(PAPER, 5, effect=0.35), "Mean@32")
    p = effect.p(question)
    low, high = effect.interval(question=question)
    excluded = (low > 0) | (high < 0)
    assert (excluded == (p < 0.05)).all()
    assert 0.05 < excluded.mean() < 0.95
    for level in (0.01, 0.2):
        low, high = effect.interval(1 - level, question)
        assert (((low > 0) | (high < 0)) == (p < level)).all()


@pytest.mark.parametrize("noise", [LogitNoise(), LogitNoise(run=0.4)])
@pytest.mark.parametrize("name", ["Mean@32", "Pass@32 bootstrap"])
def test_power_is_as_predicted(name: str, noise: LogitNoise) -> None:
    """On these benchmarks the effect is that on each study's own problems, on problems like these that on all."""
    cells, g, odds = [(AIME25, 30), (MATH500, 200)], estimators(32)[name], 0.5
    table = expected(g, float(np.hypot(noise.run, noise.run_problem)))
    mixed = noise.method_problem
    size = float(np.mean([s.mean(table, odds, mixed) - s.mean(table, 0.0, mixed) for s, _ in cells]))
    planned = Planned(tuple(draw_problems(s, n, tuple(g), noise) for s, n in cells))
    for seeds in (3, 8):
        for question, truth in zip(QUESTIONS, ({"on_these": (name, size)}, {"effect": odds}), strict=True):
            rng = np.random.default_rng(seeds)
            drawn = simulate_average(cells, seeds, STUDIES, rng, noise=noise, **truth)
            effect = compare_systems([PairedCounts(d.a, d.b, 32) for d in drawn], g)
            shown = float((effect.interval(question=question)[0] > 0).mean())
            error = 2 * np.sqrt(shown * (1 - shown) / STUDIES)
            predicted = power_curve(planned, seeds, Asked(question))(size)
            assert shown == pytest.approx(predicted, abs=0.05 + error), (seeds, question)


def test_a_study_whose_effect_is_given_has_that_effect_on_its_own_problems() -> None:
    drawn = simulate_average([(AIME25, 30), (MATH500, 40)], 2, 50, np.random.default_rng(1), on_these=("Mean@32", 0.02))
    assert np.mean([d.these["Mean@32"] for d in drawn], axis=0) == pytest.approx(np.full(50, 0.02), abs=1e-6)
    free = simulate_average([(AIME25, 30)], 2, 50, np.random.default_rng(1), effect=0.2)
    assert free[0].these["Mean@32"].std() > 0.005  # the control


def test_predictions_hang_together() -> None:
    planned = Planned((draw_problems(AIME25, 30, tuple(estimators(32)["Pass@32 bootstrap"]), LogitNoise()),))
    here, like_these = (Asked(question) for question in QUESTIONS)
    for asked in (here, like_these):
        sizes = [smallest_effect(planned, seeds, asked) for seeds in (2, 3, 5, 10, 30)]
        assert sizes == sorted(sizes, reverse=True), sizes
        stricter = Asked(asked.question, tail=asked.tail / 3)
        assert smallest_effect(planned, 10, stricter) > smallest_effect(planned, 10, asked)
    assert smallest_effect(planned, 1, here) == np.inf

    def needed(size: float, asked: Asked) -> int | None:
        return fewest(lambda seeds: power_curve(planned, seeds, asked)(size) >= 0.8, 2)

    few = needed(0.06, here)
    assert smallest_effect(planned, few, here) <= 0.06 < smallest_effect(planned, few - 1, here)
    assert needed(0.01, like_these) is None


@pytest.mark.parametrize("schedule", [range(2, 21), (3, 5, 10, 20), (20,)])
def test_looking_again_and_again_rarely_ends_in_a_false_supported(schedule) -> None:
    """2,000 studies without an effect whose seeds' means are normal; `make simulate` counts whole studies."""
    rng, schedule = np.random.default_rng(4), tuple(schedule)
    means = rng.normal(size=(2000, max(schedule)))
    spending, always = np.zeros(2000, dtype=bool), np.zeros(2000, dtype=bool)
    for seeds, share in zip(schedule, spent(schedule), strict=True):
        part = means[:, :seeds]
        t = part.mean(1) / (part.std(1, ddof=1) / np.sqrt(seeds))
        spending |= t > stats.t.isf(0.05 * share, seeds - 1)
        always |= t > stats.t.isf(0.05, seeds - 1)
    assert spending.mean() <= 0.05
    if len(schedule) > 3:
        assert always.mean() > 0.08  # the same looks, each at 5 %


def test_a_family_of_claims_rarely_has_a_false_supported() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(size=(2000, 10))
    adjusted = [min(holm({str(i): float(v) for i, v in enumerate(row)}).values()) for row in p]
    assert np.mean(np.array(adjusted) <= 0.05) == pytest.approx(0.05, abs=0.015)
    assert (p.min(1) <= 0.05).mean() > 0.3
