"""Tables of Mean@n and Pass@k with both intervals, and the paired comparison of two evaluations (paper Eq. 15, App. E).

A table of grades has one row a sample: problem_id, sample, grade (ngrpo.grades). Only `correct` scores; every
other grade counts as not solved and is counted in the table. Values are shares in [0, 1], never percent. Estimators are
in estimators.py, intervals in intervals.py; confidence is 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ngrpo.errors import UserError, unknown_name
from ngrpo.grades import GRADES
from ngrpo.statistics.crossed import rounding
from ngrpo.statistics.effects import CONFIDENCE, POWER
from ngrpo.statistics.estimators import bootstrap_pass_at_k, drawn_pass_at_k, estimator_values, unbiased_pass_at_k
from ngrpo.statistics.intervals import ChanceModel, chance_model, problem_interval, sampling_interval
from ngrpo.statistics.pairing import correlation, pairs
from ngrpo.statistics.sign_tests import exact_sign_flip_p, sampled_sign_flip_p, sign_test_p

BOOTSTRAP_RESAMPLES = 10_000
CHUNK = 1000
EQUAL = 1e-12
"""A range of differences below this is rounding."""


@dataclass(frozen=True)
class Counts:
    """One evaluation in numbers. problems: ids, sorted; correct: (N,) out of n; grades: how many samples got each."""

    problems: tuple[str, ...]
    correct: np.ndarray
    n: int
    grades: dict[str, int]


def count(grades: pd.DataFrame, where: object | None = None) -> Counts:
    """The counts of a table of grades; UserError for missing columns, unknown grades, repeated or lost samples."""
    for column in ("problem_id", "sample", "grade"):
        if column not in grades.columns:
            raise UserError(f"the column '{column}' is missing from the grades", where=where)
    if not len(grades):
        raise UserError("the grades hold no rows", where=where)
    unknown = set(grades["grade"].unique()) - set(GRADES)
    if unknown:
        raise unknown_name("grade", str(min(unknown, key=str)), GRADES, where=where)
    places, problems = pd.factorize(grades["problem_id"].astype(str), sort=True)
    drawn, samples = pd.factorize(grades["sample"])
    twice = pd.Series(places * len(samples) + drawn).duplicated().to_numpy()
    if twice.any():
        row = grades[twice].iloc[0]
        raise UserError(f"sample {row['sample']} of problem '{row['problem_id']}' occurs twice", where=where)
    sizes = np.bincount(places, minlength=len(problems))
    n = int(np.bincount(sizes).argmax())
    if (sizes != n).any():
        odd = np.flatnonzero(sizes != n)[0]
        raise UserError(
            f"problem '{problems[odd]}' has {sizes[odd]} samples, others {n}",
            where=where,
            do="sample the missing ones: every problem needs the same number",
        )
    totals = grades["grade"].value_counts()
    counted = {grade: int(totals.get(grade, 0)) for grade in GRADES}
    correct = np.bincount(places[(grades["grade"] == "correct").to_numpy()], minlength=len(problems))
    return Counts(tuple(problems), correct.astype(np.int64), n, counted)


@dataclass(frozen=True)
class _Metric:
    """A metric's name, estimator, g at c = 0 … n, and the problems' values (N,)."""

    name: str
    estimator: str
    g: np.ndarray
    values: np.ndarray


def _metrics(counts: Counts, ks: Sequence[int], seed: int | None) -> list[_Metric]:
    """Mean@n, then each Pass@k by both estimators; the bootstrap is drawn with the seed, or without one its mean."""
    mean = unbiased_pass_at_k(counts.n, 1)
    metrics = [_Metric(f"Mean@{counts.n}", "mean", mean, mean[counts.correct])]
    for k in ks:
        g = unbiased_pass_at_k(counts.n, k)
        metrics.append(_Metric(f"Pass@{k}", "unbiased", g, g[counts.correct]))
        g = bootstrap_pass_at_k(counts.n, k)
        values = g[counts.correct]
        if seed is not None:
            values = drawn_pass_at_k(counts.correct, counts.n, k, np.random.default_rng([seed, k]))
        metrics.append(_Metric(f"Pass@{k}", "bootstrap", g, values))
    return metrics


def problem_values(
    grades: pd.DataFrame | Counts, metric: str, estimator: str = "unbiased", where: object | None = None
) -> pd.Series:
    """One value a problem, in [0, 1], indexed by problem id, sorted: what a paired test pairs.

    grades: a table of them, or its counts where several metrics are asked for: counting takes longest.
    metric: "mean" or "pass@k". estimator: "unbiased" or "bootstrap" (its expectation); "mean" has only one.
    Raises UserError for a metric that isn't one, and as `count` does.
    """
    counts = grades if isinstance(grades, Counts) else count(grades, where)
    return pd.Series(estimator_values(metric, estimator, counts.n, where)[counts.correct], index=list(counts.problems))


def _sampling_variance(correct: np.ndarray, g: np.ndarray, model: ChanceModel) -> float:
    return float(model.variance(g)[correct].sum()) / len(correct) ** 2


def summarize(
    grades: pd.DataFrame, ks: Sequence[int] = (16, 32), seed: int = 0, where: object | None = None
) -> pd.DataFrame:
    """One row a metric and estimator, with both 95 % intervals, and the counts of each grade.

    Columns: metric, estimator (mean, unbiased, bootstrap), value; sampling_low, sampling_high (other samples, the same
    problems); problems_low, problems_high (other problems, too); detectable: the smallest difference from another
    evaluation of these problems, with as much sampling error, that a 5 % test shows with 80 % power; n, problems; one
    column a grade. ks: each 1 ≤ k ≤ n, else UserError. Source: paper §4.1, Eq. 15.
    """
    counts = count(grades, where)
    model = chance_model(counts.correct, counts.n)
    rows = []
    for metric in _metrics(counts, ks, seed):
        value = float(metric.values.mean())
        # The 1000 draws' own noise is left out: at most 0.016/√N, a tenth of the sampling error it would add to.
        sampling = sampling_interval(value, counts.correct, metric.g, model, CONFIDENCE)
        problems = problem_interval(metric.values, CONFIDENCE)
        error = np.sqrt(2 * _sampling_variance(counts.correct, metric.g, model))
        rows.append(
            {
                "metric": metric.name,
                "estimator": metric.estimator,
                "value": value,
                "sampling_low": sampling[0],
                "sampling_high": sampling[1],
                "problems_low": problems[0],
                "problems_high": problems[1],
                "detectable": float(error * (_normal(CONFIDENCE) + stats.norm.ppf(POWER))),
                "n": counts.n,
                "problems": len(counts.problems),
                **counts.grades,
            }
        )
    return pd.DataFrame(rows)


def _normal(confidence: float) -> float:
    return float(stats.norm.ppf(0.5 + confidence / 2))


def _aligned(a: Counts, b: Counts, where: object | None) -> None:
    only = sorted(set(a.problems) ^ set(b.problems))
    if only:
        raise UserError(
            f"the two evaluations differ in {len(only)} problems, the first '{only[0]}'",
            where=where,
            do="compare evaluations of the same benchmark",
        )


def compare(
    grades_a: pd.DataFrame,
    grades_b: pd.DataFrame,
    ks: Sequence[int] = (16, 32),
    seed: int = 0,
    where: object | None = None,
) -> pd.DataFrame:
    """The paired comparison of two evaluations of the same problems: one row a metric and estimator, b minus a.

    Columns: metric, estimator, a, b, difference; sampling_low, sampling_high (these problems, other samples, what the
    two share by their sample seeds estimated from samples of the same number);
    problems_low, problems_high (Student's t over problems); bootstrap_low, bootstrap_high (paired bootstrap over
    problems, percentiles expanded for small N: Hesterberg 2015); p_permutation (sign flips of problems' differences:
    exact for Mean@n, else sampled, seeded), p_sign (exact sign test); improved, worsened, equal: problems;
    detectable: the smallest true difference that this many problems of this spread show (5 % test, 80 % power);
    problems, n_a, n_b. The release's bootstrap enters as its mean: the noise of its 1000 draws is no difference.
    Raises UserError where the problems differ.
    """
    a, b = count(grades_a, where), count(grades_b, where)
    _aligned(a, b, where)
    models = chance_model(a.correct, a.n), chance_model(b.correct, b.n)
    shared = _shared(grades_a, grades_b)
    rows = []
    for first, second in zip(_metrics(a, ks, None), _metrics(b, ks, None), strict=True):
        differences = second.values - first.values
        size, mean = len(differences), float(differences.mean())
        error = _sampling_error((a, b), (first.g, second.g), models, shared)
        spread = float(differences.std(ddof=1)) / np.sqrt(size) if size > 1 else 1.0
        share = float(unseen(differences))
        half = _problem_half_width(spread, size, share)
        low, high = _paired_bootstrap(differences, np.random.default_rng([seed, 1]))
        improved, worsened = int((differences > 0).sum()), int((differences < 0).sum())
        whole = b.correct * a.n - a.correct * b.n if first.estimator == "mean" else None
        rows.append(
            {
                "metric": first.name if a.n == b.n or first.estimator != "mean" else f"Mean@{a.n}/{b.n}",
                "estimator": first.estimator,
                "a": float(first.values.mean()),
                "b": float(second.values.mean()),
                "difference": mean,
                "sampling_low": mean - _normal(CONFIDENCE) * error,
                "sampling_high": mean + _normal(CONFIDENCE) * error,
                "problems_low": mean - half,
                "problems_high": mean + half,
                "bootstrap_low": low,
                "bootstrap_high": high,
                "p_permutation": exact_sign_flip_p(whole)
                if whole is not None
                else sampled_sign_flip_p(differences, seed),
                "p_sign": sign_test_p(improved, worsened),
                "improved": improved,
                "worsened": worsened,
                "equal": size - improved - worsened,
                "detectable": _detectable(spread, size, share),
                "problems": size,
                "n_a": a.n,
                "n_b": b.n,
            }
        )
    return pd.DataFrame(rows)


def _sampling_error(
    both: tuple[Counts, Counts],
    gs: tuple[np.ndarray, np.ndarray],
    models: tuple[ChanceModel, ChanceModel],
    shared: np.ndarray | None,
) -> float:
    """Of a difference, problems fixed. shared: as `_shared` gives it."""
    one, other = (_sampling_variance(c.correct, g, m) for c, g, m in zip(both, gs, models, strict=True))
    size = len(both[0].problems)
    alike = correlation(shared, *gs) if shared is not None else 0.0
    least = max(rounding(g, size, 1.0) for g in gs)  # samples that are the same are no certainty
    return float(np.sqrt(max(least, one + other - 2 * alike * np.sqrt(one * other))))


def _shared(grades_a: pd.DataFrame, grades_b: pd.DataFrame) -> np.ndarray | None:
    """The samples of the same number of both evaluations, as `pairs` makes them; None where they have none."""
    wide = [
        g.assign(problem=g["problem_id"].astype(str), right=g["grade"] == "correct")
        .pivot(index="problem", columns="sample", values="right")
        .sort_index()
        for g in (grades_a, grades_b)
    ]
    numbers = wide[0].columns.intersection(wide[1].columns)
    both = [w[numbers] for w in wide]
    # problems whose samples are numbered otherwise leave gaps: nothing says then which samples belong together
    if not len(numbers) or any(w.isna().to_numpy().any() for w in both):
        return None
    return pairs(both[0].to_numpy(dtype=bool), both[1].to_numpy(dtype=bool))


def _problem_half_width(spread: float, size: int, share: float) -> float:
    """Half the interval over problems: Student's t, and the share of what N problems may hide."""
    if size < 2:
        return 1.0
    return float(
        np.hypot(stats.t.isf((1 - CONFIDENCE) / 2, size - 1) * spread, share * hidden((1 - CONFIDENCE) / 2, size))
    )


def unseen(differences: np.ndarray) -> np.ndarray:
    """How much of what N problems may hide counts, 0 … 1: all where every difference is the same, none where at least
    one problem's worth of difference was seen in all. differences: (…, N); without a spread the spread says nothing."""
    worth = np.clip(1.0 - np.abs(differences).sum(-1), 0.0, 1.0)
    return np.where(np.ptp(differences, axis=-1) < EQUAL, 1.0, worth)


def hidden(chance: float, size: int) -> float:
    """The share of changed problems of which N = `size` drawn problems show none with this chance: 1 − chance^(1/N)."""
    return 1.0 - chance ** (1 / size)


def _detectable(spread: float, size: int, share: float) -> float:
    if size < 2:
        return 1.0
    seen = np.hypot(stats.t.ppf(POWER, size - 1) * spread, share * hidden(1 - POWER, size))
    return float(min(1.0, _problem_half_width(spread, size, share) + seen))


def _paired_bootstrap(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles of resampled means, at levels expanded for N problems (Hesterberg 2015, "expanded percentile")."""
    size = len(differences)
    if size < 2:
        return -1.0, 1.0
    if np.ptp(differences) < EQUAL:  # every resample is the same, which says nothing of problems not seen
        half = hidden((1 - CONFIDENCE) / 2, size)
        return float(differences[0]) - half, float(differences[0]) + half
    means = np.concatenate(
        [
            differences[rng.integers(0, size, (CHUNK, size), dtype=np.int32)].mean(axis=1)
            for _ in range(BOOTSTRAP_RESAMPLES // CHUNK)
        ]
    )
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, size - 1) * np.sqrt(size / (size - 1))
    tail = float(stats.norm.cdf(-quantile))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
