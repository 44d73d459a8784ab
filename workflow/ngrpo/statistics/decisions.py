"""`verdict`, the rule that judges, and the effect of a training log; docs/statistics.md explains them.

Every verdict of a study comes from here; `ngrpo.claims` says what it is asked. A claim may need several effects ("best
of three" needs two): all of them must hold, so each is tested at 5 % and the chance of a false "supported" stays below
that (an intersection-union test, Berger 1982).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ngrpo.statistics.effects import CONFIDENCE, QUESTIONS, Arm, Effect

VERDICTS = ("supported", "not supported", "contradicted", "underpowered", "not run")
LEAST_SEEDS = 2
"""Training seeds below which no verdict but "underpowered" is given: one run says nothing of the next."""
LEVEL = 1 - CONFIDENCE
BATCHES = 10
"""Parts of a run's log whose means count as independent: neighboring steps aren't."""


def over_runs(series: Sequence[np.ndarray]) -> Effect:
    """The mean of a logged quantity over steps and runs. series: each run's values in step order, at least two.

    Errors: of the runs' means (where there are several), else within the run of its BATCHES batch means.
    """
    means = np.array([values.mean() for values in series])
    if len(series) > 1:
        error = np.maximum(means.std(ddof=1) / np.sqrt(len(series)), np.finfo(float).eps * np.abs(means).max())
        return Effect(means.mean(), (Arm(error, float(len(series) - 1)),))
    parts = np.array([part.mean() for part in np.array_split(series[0], min(BATCHES, len(series[0])))])
    return Effect(means.mean(), (Arm(parts.std(ddof=1) / np.sqrt(len(parts)), float(len(parts) - 1)),))


@dataclass(frozen=True)
class Weighed:
    """What a claim's effects say for one question. p_for and p_against are one-sided."""

    p_for: np.ndarray
    """Of "some effect is not above 0": the largest of theirs (Berger 1982)."""
    p_against: np.ndarray
    """Of "no effect is below 0": the smallest of theirs, times their number (Bonferroni)."""
    blind: np.ndarray
    """Whether some effect that isn't shown might have its relevant size and not have been seen."""


def weigh(tests: Sequence[tuple[Effect, float]], question: str = QUESTIONS[0]) -> Weighed:
    """What is said of "every one of these effects is above 0". tests: effects with the size that each claim is about
    (what the paper reports, or a margin), above 0."""
    above = np.stack([effect.one_sided_p(question) for effect, _ in tests])
    below = np.stack([effect.moved(-1, 0.0).one_sided_p(question) for effect, _ in tests])
    large = np.stack([effect.detectable(question) > size for effect, size in tests])
    return Weighed(
        above.max(0), np.minimum(1.0, len(tests) * below.min(0)), np.asarray((large & (2 * above > LEVEL)).any(0))
    )


def verdict(
    weighed: Weighed, replicated: bool, adjusted: tuple[np.ndarray | float, np.ndarray | float] | None = None
) -> np.ndarray:
    """An index into VERDICTS, of the effects' shape.

    replicated: whether every trained policy comes with LEAST_SEEDS seeds. adjusted: two-sided p for and against,
    adjusted for the family and for looks; default: those of this claim alone, looked at once.

    supported: the p for is at most 5 %; alone, every 95 % interval lies above 0. contradicted: the p against is.
    underpowered: an effect of the relevant size might not have been seen, or was seen alone and not after adjustment.
    not supported: it would have been seen; it wasn't.
    """
    alone = 2 * weighed.p_for, 2 * weighed.p_against
    for_it, against = (np.asarray(p) for p in adjusted or alone)
    lost = np.minimum(*alone) <= LEVEL
    holds = [for_it <= LEVEL, against <= LEVEL, weighed.blind | lost]
    codes = [VERDICTS.index(v) for v in ("supported", "contradicted", "underpowered")]
    given = np.select(holds, codes, default=VERDICTS.index("not supported"))
    return given if replicated else np.full_like(given, VERDICTS.index("underpowered"))


def judge(
    effects: Sequence[Effect], relevant: Sequence[float], replicated: bool, question: str = QUESTIONS[0]
) -> np.ndarray:
    """The verdict on "every one of these effects is above 0", taken alone: see `weigh` and `verdict`."""
    return verdict(weigh(list(zip(effects, relevant, strict=True)), question), replicated)
