"""How sure a claim's evidence is: effects over problems and training seeds, and `judge`, the rule that gives a verdict.

Every verdict of a study comes from `judge`; `ngrpo.claims` says what it is asked. docs/method.md explains it in words.

| symbol | meaning |
|---|---|
| S, N | training seeds; problems of a benchmark |
| D[s, i] | difference of two systems on problem i, each trained with seed s |

A claim is about methods and about problems of a kind: both seeds and problems are samples. An effect's interval is the
wider of two: Student's t over the S seeds' means, and over the N problems' means; so a claim is only supported where
other seeds would show it and other problems would, too. Benchmarks are averaged with equal weights: their problems are
independent, their seeds are the same. Where few problems differ N counts for less: their effective number is
(Σd²)²/Σd⁴. Where they differ by less than one problem's worth in all, what N problems may hide adds to the width.

A claim may need several effects ("best of three" needs two): all of them must hold, so each is tested at 5 % and the
chance of a false "supported" stays below that (an intersection-union test, Berger 1982). Simulated, with 2 to 10 seeds
that differ little or much and 30 to 500 problems: at most 3.9 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ngrpo.statistics.metrics import CONFIDENCE, POWER, hidden, unseen

VERDICTS = ("supported", "not supported", "contradicted", "underpowered", "not run")
LEAST_SEEDS = 2
"""Training seeds below which no verdict but "underpowered" is given: one run says nothing of the next."""
BATCHES = 10
"""Parts of a run's log whose means count as independent: neighboring steps aren't."""


@dataclass(frozen=True)
class Arm:
    """One source of error: standard error, degrees of freedom, and what problems may hide: (weight, N, how much of it
    counts) a benchmark. Arrays of the effect's shape, or numbers."""

    error: np.ndarray
    freedom: np.ndarray | float
    unseen: tuple[tuple[float, int, np.ndarray], ...] = ()

    def width(self, tail: float) -> np.ndarray:
        """What lies beyond the estimate with chance `tail` on one side."""
        square = (stats.t.isf(tail, self.freedom) * self.error) ** 2
        for weight, size, share in self.unseen:
            square = square + (weight * share * hidden(tail, size)) ** 2
        return np.sqrt(square)


@dataclass(frozen=True)
class Effect:
    """An estimate and its sources of error; the widest counts."""

    estimate: np.ndarray
    arms: tuple[Arm, ...]

    def interval(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """The two-sided interval."""
        half = np.maximum.reduce([arm.width((1 - confidence) / 2) for arm in self.arms])
        return self.estimate - half, self.estimate + half

    @property
    def detectable(self) -> np.ndarray:
        """The smallest true effect that a 5 % test of such data shows with 80 % power."""
        return np.maximum.reduce([arm.width((1 - CONFIDENCE) / 2) + arm.width(1 - POWER) for arm in self.arms])

    def moved(self, sign: int, by: float) -> "Effect":
        """sign · effect + by."""
        return Effect(sign * self.estimate + by, self.arms)


def over_problems(differences: Sequence[np.ndarray], trained: bool = True) -> Effect:
    """The effect over problems and seeds, averaged over benchmarks. differences: one (…, S, N) a benchmark, N ≥ 2.

    trained: whether the rows are training seeds; else, or with one seed, the error is that of the problems alone.
    """
    weight, seeds = 1 / len(differences), differences[0].shape[-2]
    square, share, hides = 0.0, 0.0, []
    for d in differences:
        problem = d.mean(-2)
        part = weight**2 * problem.var(-1, ddof=1) / d.shape[-1]
        square = square + part
        share = share + part**2 / np.maximum(_effective(problem) - 1, 1)
        hides.append((weight, d.shape[-1], unseen(problem)))
    tiny = np.finfo(float).tiny
    freedom = np.maximum(square**2 / np.maximum(share, tiny), 1.0)  # Satterthwaite's, over benchmarks
    arms = [Arm(np.sqrt(square), freedom, tuple(hides))]
    by_seed = weight * sum(d.mean(-1) for d in differences)
    if trained and seeds > 1:
        arms.append(Arm(by_seed.std(-1, ddof=1) / np.sqrt(seeds), float(seeds - 1)))
    return Effect(by_seed.mean(-1), tuple(arms))


def _effective(differences: np.ndarray) -> np.ndarray:
    """The effective number of problems that differ: m where m of them differ by the same amount."""
    square = differences**2
    return square.sum(-1) ** 2 / np.maximum((square**2).sum(-1), np.finfo(float).tiny)


def over_runs(series: Sequence[np.ndarray]) -> Effect:
    """The mean of a logged quantity over steps and runs. series: each run's values in step order, at least two.

    Errors: of the runs' means (where there are several), and within runs of their BATCHES batch means.
    """
    means = np.array([values.mean() for values in series])
    parts = [np.array([part.mean() for part in np.array_split(values, min(BATCHES, len(values)))]) for values in series]
    inside = np.sqrt(np.mean([p.var(ddof=1) / len(p) for p in parts]) / len(series))
    arms = [Arm(inside, float(sum(len(p) - 1 for p in parts)))]
    if len(series) > 1:
        arms.append(Arm(means.std(ddof=1) / np.sqrt(len(series)), float(len(series) - 1)))
    return Effect(means.mean(), tuple(arms))


def judge(effects: Sequence[Effect], relevant: Sequence[float], replicated: bool) -> np.ndarray:
    """A verdict on "every one of these effects is above 0", as an index into VERDICTS, of the effects' shape.

    relevant: for each effect the size that the claim is about (what the paper reports, or a margin), above 0.
    replicated: whether every trained policy comes with LEAST_SEEDS seeds.

    supported: every interval lies above 0. contradicted: some interval, widened for their number, lies below 0.
    underpowered: an effect of the relevant size might not have been seen. not supported: it would have been; it wasn't.
    """
    lows = np.stack([effect.interval()[0] for effect in effects])
    highs = np.stack([effect.interval(1 - (1 - CONFIDENCE) / len(effects))[1] for effect in effects])
    blind = np.stack([e.detectable > size for e, size in zip(effects, relevant, strict=True)]) & ~(lows > 0)
    holds = [(lows > 0).all(0), (highs < 0).any(0), blind.any(0)]
    codes = [VERDICTS.index(v) for v in ("supported", "contradicted", "underpowered")]
    verdict = np.select(holds, codes, default=VERDICTS.index("not supported"))
    return verdict if replicated else np.full_like(verdict, VERDICTS.index("underpowered"))
