"""Many claims and many looks: what a p means where it is one of several, and where seeds are added until it is small.

Both keep the chance of any false "supported" at 5 %, whatever the claims or the looks share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIRST = 0.5
"""Share of the 5 % that the first look may spend: one side of a two-sided 95 % interval."""


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p adjusted within a family (Holm 1979): the chance of any false one below a level is that level at most."""
    adjusted: dict[str, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(p, key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p}


@dataclass(frozen=True)
class Look:
    """One verdict that was looked at. seeds: a digest of the data of each training seed, in order; p: one-sided."""

    seeds: tuple[str, ...]
    p: float


def spent(looks: Sequence[int]) -> list[float]:
    """The share of the 5 % that each look spends; looks: the number of seeds at each. At most 1 in all, however many.

    The first spends FIRST. What is left is spent as seeds come: S₁/S of it is still there at S seeds, S₁ those of the
    first look. A look without new seeds (changed data) counts as one seed more. Error spending: Lan & DeMets 1983; the
    sum holds by the union bound, for statistics of any dependence, without a greatest number of seeds.
    """
    shares: list[float] = []
    clock = 0
    for seeds in looks:
        now = max(seeds, clock + 1)
        shares.append((1 - FIRST) * max(looks[0], 1) * (1 / clock - 1 / now) if shares else FIRST)
        clock = max(now, 1)
    return shares


def any_time_p(looks: Sequence[Look]) -> float:
    """A p that stays honest however often was looked, the last look being the present one; two-sided at the first.

    An earlier look counts as far as the present data still hold what it saw; where they have changed, what it spent
    stays spent.
    """
    now = looks[-1].seeds
    shares = spent([len(look.seeds) for look in looks])
    held = [look.p / share for look, share in zip(looks, shares, strict=True) if look.seeds == now[: len(look.seeds)]]
    return min(1.0, *held) if held else 1.0


def add_look(looks: Sequence[Look], now: Look) -> list[Look]:
    """The looks with the present one; the same data looked at again are no new look."""
    past = list(looks)
    if past and past[-1].seeds == now.seeds:
        past.pop()
    return [*past, now]
