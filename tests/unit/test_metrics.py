"""Promises of the metrics: estimators equal closed forms and brute force, intervals cover, comparisons are paired."""

from itertools import combinations, product
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ngrpo.errors import UserError
from ngrpo.report.inspection import diff, show
from ngrpo.statistics.estimators import bootstrap_pass_at_k, drawn_pass_at_k, unbiased_pass_at_k
from ngrpo.statistics.intervals import chance_model, problem_interval, sampling_interval
from ngrpo.statistics.metrics import (
    compare,
    count,
    problem_values,
    summarize,
)
from ngrpo.statistics.sign_tests import exact_sign_flip_p, sampled_sign_flip_p, sign_test_p
from ngrpo.terminal import printable, text_table


def grades(correct: list[int], n: int, other: str = "wrong") -> pd.DataFrame:
    """A table of grades with correct[i] of problem i's n samples correct."""
    rows = [
        {"problem_id": f"p{i:03d}", "sample": j, "grade": "correct" if j < c else other}
        for i, c in enumerate(correct)
        for j in range(n)
    ]
    return pd.DataFrame(rows)


def as_grades(right: np.ndarray) -> pd.DataFrame:
    problem, sample = np.indices(right.shape)
    grade = np.where(right, "correct", "wrong").ravel()
    ids = [f"p{i:03d}" for i in problem.ravel()]
    return pd.DataFrame({"problem_id": ids, "sample": sample.ravel(), "grade": grade})


# --- estimators ---


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_the_unbiased_estimator_is_its_closed_form(nk):
    n, k = nk
    closed = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]
    np.testing.assert_allclose(unbiased_pass_at_k(n, k), closed, atol=1e-12)


def test_the_unbiased_estimator_is_the_share_of_subsets_with_a_correct_sample():
    n, k = 7, 3
    for c in range(n + 1):
        hits = [any(i < c for i in subset) for subset in combinations(range(n), k)]
        assert unbiased_pass_at_k(n, k)[c] == pytest.approx(np.mean(hits))


def test_the_bootstraps_mean_is_the_share_of_draws_with_replacement():
    n, k = 5, 3
    for c in range(n + 1):
        hits = [any(i < c for i in draw) for draw in product(range(n), repeat=k)]
        assert bootstrap_pass_at_k(n, k)[c] == pytest.approx(np.mean(hits))


def test_the_drawn_bootstrap_is_distributed_as_drawing_indices():
    n, k, c, times = 32, 16, 2, 300
    rng = np.random.default_rng(0)
    drawn = drawn_pass_at_k(np.full(times, c), n, k, rng)
    indices = [(rng.integers(0, n, (1000, k)) < c).any(axis=1).mean() for _ in range(times)]
    assert stats.ks_2samp(drawn, indices).pvalue > 0.01


def test_one_right_of_32_at_k_32_counts_1_unbiased_and_0_638_in_the_release():
    assert unbiased_pass_at_k(32, 32)[1] == 1.0
    assert bootstrap_pass_at_k(32, 32)[1] == pytest.approx(0.638, abs=5e-4)


@pytest.mark.parametrize("k", [1, 7, 32])
def test_unbiased_is_unbiased_and_the_bootstrap_is_not(k):
    n, p = 32, 0.07
    chances = stats.binom.pmf(np.arange(n + 1), n, p)
    truth = 1 - (1 - p) ** k
    assert chances @ unbiased_pass_at_k(n, k) == pytest.approx(truth, abs=1e-12)
    if k > 1:
        assert chances @ bootstrap_pass_at_k(n, k) < truth - 0.005


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_estimators_stay_within_0_and_1_and_rise_with_c(a, b):
    n, k = max(a, b), min(a, b)
    for g in (unbiased_pass_at_k(n, k), bootstrap_pass_at_k(n, k)):
        assert g[0] == 0
        assert g[-1] == 1
        assert (np.diff(g) >= 0).all()


@pytest.mark.parametrize("k", [0, 9])
def test_k_beyond_n_is_refused(k):
    with pytest.raises(UserError, match=f"Pass@{k} needs 1 ≤ k ≤ n, but there are 8"):
        summarize(grades([1, 2], 8), [k])


# --- intervals ---


def _coverage(draw_chances, size: int, k: int, kind: str, repetitions: int = 1200, shrink: float = 1.0) -> float:
    """How often the interval holds the true value: of these problems (sampling) or of the population (problems)."""
    n, rng = 32, np.random.default_rng([size, k])
    g = unbiased_pass_at_k(n, k)
    population = 1 - (1 - draw_chances(rng, 400_000)) ** k
    hits = 0
    for _ in range(repetitions):
        chances = draw_chances(rng, size)
        correct = rng.binomial(n, chances)
        value = float(g[correct].mean())
        if kind == "problems":
            truth, (low, high) = population.mean(), problem_interval(g[correct])
        else:
            truth = float((1 - (1 - chances) ** k).mean())
            low, high = sampling_interval(value, correct, g, chance_model(correct, n))
        low, high = value + shrink * (low - value), value + shrink * (high - value)
        hits += low <= truth <= high
    return 100 * hits / repetitions


def _competition(rng: np.random.Generator, size: int) -> np.ndarray:
    """Chances as on AIME: half the problems nearly never solved."""
    return np.where(rng.random(size) < 0.5, rng.beta(0.3, 6, size), rng.beta(1.2, 1, size))


def _u_shaped(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.beta(0.4, 0.4, size)


# 1200 repetitions have a standard error of 0.6 points: the promise of ±2 points is tested at ±2 plus twice that.
NEARLY_95 = (95 - 2 - 1.2, 95 + 2 + 1.2)


@pytest.mark.parametrize("kind", ["sampling", "problems"])
@pytest.mark.parametrize("k", [1, 16, 32])
@pytest.mark.parametrize(("chances", "size"), [(_competition, 30), (_u_shaped, 30), (_u_shaped, 198)])
def test_intervals_cover_what_they_state(chances, size, k, kind):
    low, high = NEARLY_95
    assert low <= _coverage(chances, size, k, kind) <= high


@pytest.mark.parametrize("kind", ["sampling", "problems"])
def test_a_narrower_interval_would_be_caught(kind):
    """Negative control: intervals three quarters as wide miss the promise."""
    assert _coverage(_u_shaped, 30, 1, kind, shrink=0.75) < NEARLY_95[0]


def test_the_two_errors_are_told_apart():
    """Problems that are always or never solved have no sampling error to speak of, but a large problem-set error."""
    row = summarize(grades([32] * 15 + [0] * 15, 32), []).iloc[0]
    assert row.sampling_high - row.sampling_low < 0.02
    assert row.problems_high - row.problems_low > 0.3
    many = summarize(grades([16] * 30, 32), []).iloc[0]
    assert many.problems_high - many.problems_low < row.problems_high - row.problems_low


@pytest.mark.parametrize("correct", [[0] * 30, [32] * 30, [0], [32], [5]])
def test_extreme_results_keep_an_honest_width(correct):
    for row in summarize(grades(correct, 32), (1, 32)).itertuples():
        for low, high in ((row.sampling_low, row.sampling_high), (row.problems_low, row.problems_high)):
            assert 0 <= low <= row.value <= high <= 1
            assert low < high
        if len(set(correct)) == 1 and correct[0] in (0, 32):
            assert row.problems_high - row.problems_low > 0.05


def test_detectable_is_detected_with_the_stated_power():
    n, size, rng = 32, 100, np.random.default_rng(3)
    chances = rng.beta(2, 2, size) * 0.8 + 0.05
    model_row = summarize(grades(list(rng.binomial(n, chances)), n), []).iloc[0]
    detected = 0
    for _ in range(400):
        a, b = rng.binomial(n, chances), rng.binomial(n, chances + model_row.detectable)
        error = np.sqrt((a * (n - a) + b * (n - b)).sum() / (n - 1)) / n / size
        detected += abs((b - a).mean() / n) > 1.96 * error
    assert 0.74 <= detected / 400 <= 0.86


# --- tables ---


def test_a_summary_has_both_estimators_both_intervals_and_every_grade():
    table = grades([0, 1, 32], 32)
    table.loc[0, "grade"], table.loc[1, "grade"], table.loc[2, "grade"] = "truncated", "grader_error", "no_answer"
    summary = summarize(table, (16, 32))
    assert list(summary["metric"]) == ["Mean@32", "Pass@16", "Pass@16", "Pass@32", "Pass@32"]
    assert list(summary["estimator"]) == ["mean", "unbiased", "bootstrap", "unbiased", "bootstrap"]
    assert summary["value"][0] == pytest.approx(33 / 96)
    assert summary["value"][3] == pytest.approx(2 / 3)
    assert summary["value"][4] == pytest.approx((0.638 + 1) / 3, abs=0.02)
    counts = summary[["correct", "wrong", "no_answer", "truncated", "grader_error"]].iloc[0].tolist()
    assert counts == [33, 60, 1, 1, 1]
    assert summary[["n", "problems"]].iloc[0].tolist() == [32, 3]


def test_rows_may_come_in_any_order_and_the_seed_decides_the_bootstrap():
    table = grades([3, 9, 20, 31], 32)
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(summarize(table, (16,)), summarize(shuffled, (16,)))
    other = summarize(table, (16,), seed=1)
    assert other["value"][2] != summarize(table, (16,))["value"][2]
    assert other["value"][1] == summarize(table, (16,))["value"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="grade"), "column 'grade' is missing"),
        (lambda t: t.iloc[:0], "hold no rows"),
        (lambda t: t.replace({"grade": {"wrong": "wrnog"}}), "no grade 'wrnog'.*\n.*did you mean 'wrong'"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "sample 0 of problem 'p000' occurs twice"),
        (lambda t: t.iloc[:-1], "problem 'p002' has 3 samples, others 4"),
    ],
)
def test_unusable_grades_say_what_is_wrong(change, message):
    with pytest.raises(UserError, match=message):
        count(change(grades([1, 2, 3], 4)))


# --- comparisons ---


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_the_exact_permutation_test_is_the_enumeration_of_all_flips(differences):
    d = np.array(differences)
    sums = [abs(np.dot(signs, d)) for signs in product([-1, 1], repeat=len(d))]
    assert exact_sign_flip_p(d) == pytest.approx(np.mean([s >= abs(d.sum()) for s in sums]))
    assert sampled_sign_flip_p(d / 7, 0) == pytest.approx(exact_sign_flip_p(d), abs=0.03)


def test_the_sign_test_is_exact():
    assert sign_test_p(8, 0) == pytest.approx(2 / 256)
    assert sign_test_p(0, 0) == 1.0


def test_a_comparison_is_paired():
    a = [2, 9, 16, 23, 30] * 8
    b = [c + 1 for c in a]
    row = compare(grades(a, 32), grades(b, 32), []).iloc[0]
    assert row.difference == pytest.approx(1 / 32)
    assert row.problems_low <= 1 / 32 <= row.problems_high
    assert row.p_permutation == pytest.approx(2 * 0.5**40)
    assert (row.improved, row.worsened, row.equal) == (40, 0, 0)
    unpaired = compare(grades(a, 32), grades(b[7:] + b[:7], 32), []).iloc[0]
    assert unpaired.difference == pytest.approx(1 / 32)
    assert unpaired.p_permutation > 0.05


def test_swapping_two_evaluations_turns_every_sign():
    a, b = grades([1, 5, 9, 0, 30, 12], 32), grades([4, 5, 7, 2, 31, 20], 32)
    there, back = compare(a, b, (16,)), compare(b, a, (16,))
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["problems_low"], -back["problems_high"])
    np.testing.assert_allclose(there["sampling_low"], -back["sampling_high"])
    assert list(there["improved"]) == list(back["worsened"])


def test_equal_evaluations_differ_by_nothing_but_keep_a_width():
    row = compare(grades([4, 8], 8), grades([4, 8], 8), []).iloc[0]
    assert (row.difference, row.p_permutation, row.p_sign, row.equal) == (0, 1, 1, 2)
    assert row.problems_low < 0 < row.problems_high


@pytest.mark.parametrize("size", [1, 2, 30, 500])
def test_equal_differences_are_no_certainty(size):
    """No problem differs, or all by the same: more of N problems may differ than N problems show."""
    for correct in ([3] * size, [5] * size):
        row = compare(grades([3] * size, 8), grades(correct, 8), []).iloc[0]
        assert row.problems_low < row.difference < row.problems_high
        assert row.bootstrap_low < row.difference < row.bootstrap_high
        assert row.detectable >= row.problems_high - row.difference > 0
    nearly = compare(grades([8] * size, 8), grades([8] * (size - 1) + [7], 8), [8]).iloc[-1]
    assert nearly.detectable > 0.9 * (1 - 0.025 ** (1 / size))


@pytest.mark.parametrize("kinds", [("sampling",), ("problems", "bootstrap")])
def test_the_intervals_of_a_difference_cover(kinds):
    rng, n, size, gain, hits = np.random.default_rng(5), 16, 30, 0.05, dict.fromkeys(kinds, 0)
    for _ in range(200):
        p = rng.beta(0.8, 0.8, size) * 0.9
        q = np.clip(p + gain + rng.normal(0, 0.04, size) * ("sampling" not in kinds), 0, 1)
        a, b = (as_grades(rng.uniform(size=(size, n)) < x[:, None]) for x in (p, q))
        row = compare(a, b, []).iloc[0]
        truth = float((q - p).mean()) if "sampling" in kinds else gain
        for kind in kinds:
            hits[kind] += row[f"{kind}_low"] <= truth <= row[f"{kind}_high"]
    assert all(0.915 <= hit / 200 <= 0.99 for hit in hits.values())


def test_tests_of_no_difference_reject_as_rarely_as_they_say():
    rng, rejected = np.random.default_rng(6), 0
    for _ in range(400):
        p = rng.beta(0.5, 0.5, 30)
        rejected += exact_sign_flip_p(rng.binomial(32, p) - rng.binomial(32, p)) <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_values_a_problem_average_to_what_a_summary_says():
    frame = grades([0, 1, 4, 8], 8)
    whole = summarize(frame, [4]).set_index(["metric", "estimator"])["value"]
    assert problem_values(frame, "mean").mean() == pytest.approx(whole["Mean@8", "mean"])
    assert list(problem_values(frame, "pass@4").index) == ["p000", "p001", "p002", "p003"]
    for estimator, tolerance in (("unbiased", 1e-12), ("bootstrap", 0.02)):
        mean = problem_values(frame, "pass@4", estimator).mean()
        assert mean == pytest.approx(whole["Pass@4", estimator], abs=tolerance)
    for metric, estimator in (("pass", "unbiased"), ("recall@4", "unbiased"), ("pass@4", "median")):
        with pytest.raises(UserError, match="no metric"):
            problem_values(frame, metric, estimator)


def test_different_problems_are_not_compared():
    with pytest.raises(UserError, match="differ in 1 problems, the first 'p002'"):
        compare(grades([1, 2], 4), grades([1, 2, 3], 4))


# --- terminal tables ---


def _problem_tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    problems = pd.DataFrame({"id": ["p000"], "problem": ["What is $1+1$?"], "answer": ["2"], "kind": ["math"]})
    samples = pd.DataFrame(
        {
            "problem_id": ["p000"] * 3,
            "sample": [0, 1, 2],
            "text": ["First.\n" + 500 * "long " + r"so \boxed{2}", "\x1b[31mred \u202e", "cut"],
            "finish_reason": ["stop", "stop", "length"],
            "tokens": [4, 5, 9],
        }
    )
    graded = pd.DataFrame(
        {
            "problem_id": ["p000"] * 3,
            "sample": [0, 1, 2],
            "grade": ["correct", "no_answer", "truncated"],
            "extracted": ["2", None, None],
            "reason": [None, None, None],
            "second_grade": ["correct", "correct", "truncated"],
        }
    )
    return problems, samples, graded


def test_show_has_every_sample_whole_and_no_control_character():
    text = show("p000", *_problem_tables())
    assert "reference 2" in text
    assert "3 samples: 1 correct, 1 no answer, 1 truncated" in text
    assert all(word in text for word in ("correct", "no answer", "truncated", "length"))
    assert "First.\n" + 500 * "long " + r"so \boxed{2}" in text
    assert "--- sample 0: correct, answer 2, finish stop, 4 tokens ---" in text
    assert "sample 1: no answer, second grader: correct, finish stop" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    with pytest.raises(UserError, match=r"no problem 'p00'.*\n.*\n.*did you mean 'p000'"):
        show("p00", *_problem_tables())


def test_diff_names_the_problems_that_flipped():
    text = diff(grades([0, 4, 2, 8], 8), grades([3, 0, 2, 8], 8), ("grpo", "n-grpo"), ks=(4,))
    assert "2 of 4 problems changed, 2 of them flipped" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("p0")}
    assert lines["p000"].split()[1:] == ["0/8", "3/8", "solved"]
    assert lines["p001"].split()[1:] == ["4/8", "0/8", "lost"]
    assert "Mean@8" in text
    assert "Pass@4" in text


def test_printable_keeps_ordinary_text_and_escapes_the_rest():
    assert printable("π = שלום 3") == "π = שלום 3"
    assert printable("a\nb\x00\ud800") == "a\\nb\\x00\\ud800"
    assert printable("x" * 50, 10) == "x" * 9 + "…"
    assert printable(None) == ""


def test_a_text_table_aligns_numbers_right_and_cuts_and_escapes_words():
    rows = [["a\x1b[31m", 7], ["long enough to be cut", 12]]
    assert text_table(["name", "n"], rows, [8, 6]).splitlines() == [
        "name       n",
        "--------  --",
        "a\\x1b[3…   7",
        "long en…  12",
    ]
    assert text_table(["name", "n"], [], gap=3).splitlines() == ["name   n", "----   -"]
