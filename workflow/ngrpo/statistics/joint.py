"""How likely several events are together, where only the chance of each is known: sharp bounds, whatever they share.

At least u of n events with chances p: at most min over j < u of (the sum of the n − j smallest)/(u − j), and 1 (Rüger
1978, Metrika 25); at least what the same bound says of the others, that n − u + 1 of n events fail. All of n: from
1 − Σ(1 − p) (Bonferroni) to the smallest p.
"""

from collections.abc import Sequence


def most_likely(chances: Sequence[float], at_least: int) -> float:
    """The largest chance that so many of the events happen."""
    ordered = sorted(chances)
    sums = (sum(ordered[: len(ordered) - j]) / (at_least - j) for j in range(at_least))
    return min(1.0, *sums)


def least_likely(chances: Sequence[float], at_least: int) -> float:
    """The smallest chance that so many of the events happen."""
    return 1.0 - most_likely([1.0 - p for p in chances], len(chances) - at_least + 1)
