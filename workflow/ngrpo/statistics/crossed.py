"""The difference of two systems on benchmarks, from counts of the crossed design problem × seed × sample × method.

| symbol | meaning |
|---|---|
| S, N, n | training seeds; problems of a benchmark; samples of a problem |
| c[s, i] | how many of problem i's n samples are correct under seed s |
| D[s, i] | g[c] of the one system minus g[c] of the other, trained with the same seed; g: an estimator |

D[s, i] = effect + problem i + seed s + (problem × seed, and the samples' noise). Mean squares of the two-way layout
(Cornfield & Tukey 1956): E MS_seed = N σ²_seed + σ²_rest, E MS_problem = S σ²_problem + σ²_rest, E MS_rest = σ²_rest.

- **on these benchmarks**: the variance of the S seeds' means over S, S − 1 degrees of freedom: a paired t test over
  seeds. It holds whatever the noise inside a seed is like, and whatever the two systems share (sample seeds, data
  order) is estimated with it: only what differs between them is left in D.
- **on problems like these**: that, plus σ²_problem/N of each benchmark, (MS_problem − MS_rest)/(N S), 0 where below;
  in all (MS_problem + MS_seed − MS_rest)/(N S).

Benchmarks are averaged with equal weights: problems are independent, seeds are the same. A system that isn't trained
has one evaluation, whose samples are the same in every D[s]: their variance, which seeds don't show, is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ngrpo.errors import UserError
from ngrpo.statistics.effects import Arm, Effect
from ngrpo.statistics.estimators import count_chances
from ngrpo.statistics.intervals import chance_model
from ngrpo.statistics.pairing import correlation

TINY = np.finfo(float).tiny
RARE = 3
"""Differing problems below which those not seen count."""
ROUNDING = 1 / 12
"""Variance of a uniform error one unit wide (Sheppard 1898)."""


@dataclass(frozen=True)
class PairedCounts:
    """One benchmark's counts of correct samples. a, b: (…, S, N), S = 1 for a system that isn't trained; n: samples of
    each problem; shared: (N, 4) of their samples of the same number, as ngrpo.statistics.pairing.pairs makes them, for
    two systems that aren't trained; None where they share nothing."""

    a: np.ndarray
    b: np.ndarray
    n: int
    shared: np.ndarray | None = None


def compare_systems(
    benchmarks: Sequence[PairedCounts], g: np.ndarray, trained: tuple[bool, bool] = (True, True)
) -> Effect:
    """The first system minus the second, averaged over benchmarks. g: (n + 1,) the estimator's values.

    trained: which of the two are trained policies, with a row a seed. Where one is, and there is one seed, the error
    is that of this run's samples (and of problems): it says nothing of another seed.
    Raises UserError where the two can't be paired.
    """
    for pair in benchmarks:
        _check(pair, g, trained)
    weight = 1 / len(benchmarks)
    stacked = [g[pair.a] - g[pair.b] for pair in benchmarks]
    by_seed = weight * sum(d.mean(-1) for d in stacked)
    seeds = max(d.shape[-2] for d in stacked)
    problems = [_over_problems(pair, d, g, weight) for pair, d in zip(benchmarks, stacked, strict=True)]
    if any(trained) and seeds > 1:
        floor = sum(rounding(g, d.shape[-1], weight) for d in stacked)
        # seeds that agree to the last sample don't say that all seeds do: at least a sample's rounding is left
        spread = np.maximum(by_seed.var(-1, ddof=1), floor)
        over_seeds = Arm(np.sqrt(spread / seeds), float(seeds - 1))
        untrained = (not trained[0], not trained[1])
        still = [_samples(pair, g, weight, untrained) for pair in benchmarks] if any(untrained) else []
        return Effect(by_seed.mean(-1), (over_seeds, *still), (over_seeds, *problems))
    both = tuple(_samples(pair, g, weight, (True, True)) for pair in benchmarks)
    return Effect(by_seed.mean(-1), both, tuple(problems))


def mean_of_values(values: np.ndarray, trained: bool = True) -> Effect:
    """The mean of shares a problem, such as whether one is lost. values: (…, S, N) within [-1, 1], a row a seed.

    With one row nothing is known of samples or seeds: both questions get the error over problems.
    """
    seeds, size = values.shape[-2:]
    if size < 2:
        raise UserError("a benchmark has fewer than two problems", do="measure at least two")
    rest = _rest(values)
    problems = problem_arm(values.mean(-2), rest / seeds, 1.0, 1.0)
    by_seed = values.mean(-1)
    if not trained or seeds < 2:
        return Effect(by_seed.mean(-1), (problems,), (problems,))
    spread = np.maximum(by_seed.var(-1, ddof=1), ROUNDING / size**2)
    over_seeds = Arm(np.sqrt(spread / seeds), float(seeds - 1))
    return Effect(by_seed.mean(-1), (over_seeds,), (over_seeds, problems))


def share_interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval over problems of a share of them, such as those that are lost; (0, 1) for a single one.

    values: (N,) within [0, 1]. It is the one by which a share with one training seed is judged.
    """
    if len(values) < 2:
        return 0.0, 1.0
    low, high = mean_of_values(values[None], trained=False).interval()
    return max(0.0, float(low)), min(1.0, float(high))


def _check(pair: PairedCounts, g: np.ndarray, trained: tuple[bool, bool]) -> None:
    """Raises UserError for counts that can't be paired."""
    (seeds_a, size_a), (seeds_b, size_b) = pair.a.shape[-2:], pair.b.shape[-2:]
    if size_a != size_b:
        raise UserError(
            f"the two evaluations differ in problems: {size_a} and {size_b}", do="compare the same benchmark"
        )
    if size_a < 2:
        raise UserError("a benchmark has fewer than two problems", do="measure at least two")
    if all(trained) and seeds_a != seeds_b:
        raise UserError(
            f"one system has {seeds_a} training seeds, the other {seeds_b}", do="train and evaluate both with each seed"
        )
    for count, is_trained in ((seeds_a, trained[0]), (seeds_b, trained[1])):
        if not is_trained and count != 1:
            raise UserError(f"a system that isn't trained has {count} evaluations", do="give it one")
    if len(g) != pair.n + 1:
        raise UserError(f"the estimator is for {len(g) - 1} samples a problem, the counts for {pair.n}")
    for counts in (pair.a, pair.b):
        if counts.min() < 0 or counts.max() > pair.n:
            raise UserError(f"a problem has {counts.max()} correct of {pair.n} samples", do="give the same n to both")


def _over_problems(pair: PairedCounts, differences: np.ndarray, g: np.ndarray, weight: float) -> Arm:
    """What other problems add to the error: σ²_problem/N of one benchmark; with one seed all that problems vary by."""
    seeds = differences.shape[-2]
    a, b = pair.a.mean(-2) / pair.n, pair.b.mean(-2) / pair.n
    one = (a + b) / 2 * (1 - (a + b) / 2)
    unseen = sensitive(((a - b) ** 2).sum(-1), (one**2).sum(-1), g)
    return problem_arm(differences.mean(-2), _rest(differences) / seeds, weight, unseen)


def _rest(values: np.ndarray) -> np.ndarray | float:
    """MS_rest of (…, S, N); 0 with one seed, where it can't be told from the problems' own."""
    seeds, size = values.shape[-2:]
    if seeds < 2:
        return 0.0
    problem, seed = values.mean(-2, keepdims=True), values.mean(-1, keepdims=True)
    left = values - problem - seed + problem.mean(-1, keepdims=True)
    return np.asarray((left**2).sum((-1, -2)) / ((seeds - 1) * (size - 1)))


def problem_arm(problem: np.ndarray, noise: np.ndarray | float, weight: float, sensitive: np.ndarray | float) -> Arm:
    """The problems' part of an error. problem: (…, N) mean differences over seeds; noise: the variance in them that
    isn't the problems' own; sensitive: how much a problem that wasn't seen may differ."""
    size = problem.shape[-1]
    spread = problem.var(-1, ddof=1)
    share = np.maximum(spread - noise, 0.0)  # σ²_problem
    centered = problem - problem.mean(-1, keepdims=True)
    third = (centered * centered * centered).mean(-1)  # a product: powers take ten times as long
    # of the skewness only the problems' own part counts: the noise's third moment is chance
    skew = weight * third / (6 * size * np.maximum(spread, TINY)) * np.sqrt(share / np.maximum(spread, TINY))
    square = problem**2
    differing = square.sum(-1) ** 2 / np.maximum((square**2).sum(-1), TINY)
    unseen = weight * sensitive * np.clip(1 - differing / RARE, 0.0, 1.0)
    return Arm(weight * np.sqrt(share / size), _freedom(centered, spread), skew, unseen, size)


def _freedom(centered: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the variance of values (…, N) around their mean: 2N/(kurtosis − 1), at most N − 1 (Box
    1953)."""
    size = centered.shape[-1]
    fourth = ((centered**2) ** 2).mean(-1)
    square = (spread * (size - 1) / size) ** 2
    kurtosis = np.where(square > TINY, fourth / np.maximum(square, TINY), 1.0)  # 1 is the least that there is
    return np.clip(2 * size / np.maximum(kurtosis - 1, 1 / size), 1.0, size - 1.0)


def sensitive(square: np.ndarray, variance: np.ndarray, g: np.ndarray) -> np.ndarray:
    """How much a problem as sensitive as can be would differ if it differs as those seen do, at most 1. Sums over
    problems (…): of the squared differences of the two systems' rates of success, of the squares of q(1 − q), q their
    mean rate.

    Difference on the scale of log-odds from observed − expected and its variance (Peto's one step, Yusuf et al. 1985),
    its root mean square over problems, times the estimator's steepest slope.
    """
    odds = np.sqrt(square / np.maximum(variance, TINY))
    return np.where(variance > 0, np.minimum(1.0, odds * steepest(tuple(g))), 1.0)


@cache
def steepest(g: tuple[float, ...]) -> float:
    """The largest slope of E g[C], C ~ Binomial(n, p), over the log-odds of p."""
    odds = np.linspace(-12, 12, 481)
    return float(np.abs(np.gradient(np.array(g) @ count_chances(len(g) - 1, odds), odds)).max())


def rounding(g: np.ndarray, size: int, weight: float) -> float:
    """The least variance of seeds' means on a benchmark of so many problems: a sample's rounding."""
    return float((weight * np.diff(g).max() / size) ** 2 * ROUNDING)


def _samples(pair: PairedCounts, g: np.ndarray, weight: float, sides: tuple[bool, bool]) -> Arm:
    """The error of the samples of one benchmark, for the sides whose samples count; problems and policies fixed."""
    parts = []
    for counts, wanted in zip((pair.a, pair.b), sides, strict=True):
        flat = counts.reshape(-1, *counts.shape[-2:])
        each = [sampling_variance(row, pair.n, g) for rows in flat for row in rows[:1]] if wanted else [0.0] * len(flat)
        parts.append(np.reshape(each, counts.shape[:-2]))
    alike = correlation(pair.shared, g, g) if pair.shared is not None and all(sides) else 0.0
    variance = parts[0] + parts[1] - 2 * alike * np.sqrt(parts[0] * parts[1])
    # samples that are all the same don't say that others would be: at least a sample's rounding is left
    return Arm(weight * np.sqrt(np.maximum(variance, rounding(g, pair.a.shape[-1], 1.0))), np.inf)


def sampling_variance(correct: np.ndarray, n: int, g: np.ndarray) -> float:
    """The variance of a benchmark's value over samples, problems and policy fixed. correct: (N,)."""
    model = chance_model(correct, n)
    return float(model.variance(g)[correct].sum()) / len(correct) ** 2
