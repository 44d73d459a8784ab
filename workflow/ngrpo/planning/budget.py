"""A budget turned round: which claims so many device-hours decide."""

from collections.abc import Sequence
from dataclasses import dataclass

from ngrpo.planning.planned_claims import PlannedClaim
from ngrpo.statistics.effects import QUESTIONS


@dataclass(frozen=True)
class Bought:
    """A claim that a budget buys: its seeds, what it adds to what was bought before, and all so far. Device-hours."""

    name: str
    seeds: int
    extra: float
    spent: float


def buy(claims: Sequence[PlannedClaim], budget: float) -> list[Bought]:
    """Which claims to decide first with so many device-hours (high estimates), on these benchmarks: always the one that
    adds least to what is bought, runs that two claims share being paid once."""
    wanted = {c.name: (c, c.decision(QUESTIONS[0]).seeds) for c in claims}
    left = {name: (claim, need) for name, (claim, need) in wanted.items() if need is not None}
    owned: dict[str, int] = {}
    bought: list[Bought] = []
    spent = 0.0

    def extra(name: str) -> float:
        claim, need = left[name]
        if not claim.runs:
            return claim.hours.once.high
        new = sum(max(0, need - owned.get(run, 0)) for run in claim.runs) / len(claim.runs)
        return claim.hours.seed.high * new + claim.hours.once.high

    while left:
        name = min(left, key=extra)
        if spent + extra(name) > budget:
            break
        added, (claim, need) = extra(name), left.pop(name)
        spent += added
        owned |= {run: max(need, owned.get(run, 0)) for run in claim.runs}
        bought.append(Bought(name, need, added, spent))
    return bought
