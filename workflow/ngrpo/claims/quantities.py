"""Names of what is measured, the same wherever a number of it stands: the page has them beside its numbers, claims.json
has them, and a test compares all numbers of one name.

An evaluation's id is policy/decoding/benchmark; a system is the first two of these.
"""

from collections.abc import Sequence


def value_of(evaluations: Sequence[str], metric: str, estimator: str) -> str:
    """A system's value with one training seed, averaged over evaluations. metric: as tables name it."""
    return "|".join(["value", _systems(evaluations), _benchmarks(evaluations), metric, estimator])


def difference_of(ours: Sequence[str], theirs: Sequence[str], metric: str, estimator: str, seeds: Sequence[int]) -> str:
    """One system minus another. ours, theirs: evaluations with the first of these training seeds, a benchmark each."""
    systems = f"{_systems(ours)} − {_systems(theirs)}"
    counted = "mean" if metric.startswith("Mean") else estimator
    return "|".join(["difference", systems, _benchmarks(ours), metric, counted, f"seeds {','.join(map(str, seeds))}"])


def explored(measure: str, evaluation: str) -> str:
    """A measure of exploration, of a system."""
    return f"explored|{measure}|{evaluation}"


def explored_beside(measure: str, evaluation: str, other: str) -> str:
    """The same beside another system: a difference, or a share of problems that are gained or lost."""
    return f"explored|{measure}|{evaluation} − {other}"


def lost_of(evaluation: str, other: str, seeds: int) -> str:
    """The share of problems that the other system solves and this one doesn't, over so many training seeds."""
    return explored_beside("lost", evaluation, other) if seeds == 1 else f"lost|{evaluation} − {other}|{seeds} seeds"


def flips_of(run: str, kind: str) -> str:
    """The share of fed vectors that lie nearest to another token. kind: noise or mixture."""
    return f"flips|{kind}|{run}"


def logged_of(what: str, runs: Sequence[str]) -> str:
    """What training logs say."""
    return f"logged|{what}|{'+'.join(runs)}"


def _systems(evaluations: Sequence[str]) -> str:
    return "+".join(dict.fromkeys(name.rpartition("/")[0] for name in evaluations))


def _benchmarks(evaluations: Sequence[str]) -> str:
    return "+".join(sorted(name.rpartition("/")[2] for name in evaluations))
