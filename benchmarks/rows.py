"""One figure of a benchmark, and clocks."""

import time
from collections.abc import Callable
from typing import Any


def row(
    name: str,
    *,
    ours: float,
    peer: float | None,
    unit: str,
    ratio: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    holds: bool = True,
    note: str = "",
) -> dict[str, Any]:
    """A row of results/bench.json: {name, ours, peer, unit, ratio, goal, met, note}.

    The goal is a bound on the ratio, or on `ours` where there is no ratio. holds: a condition besides speed, such as
    equal results; where it fails the goal isn't met. note: how it was measured, slices and sizes included.
    """
    figure = ours if ratio is None else ratio
    sign, bound = ("≥", at_least) if at_least is not None else ("≤", at_most)
    if bound is None:
        raise ValueError(f"benchmark {name} has no goal")
    met = holds and (figure >= bound if at_least is not None else figure <= bound)
    rounded = {
        key: None if x is None else float(f"{x:.4g}") for key, x in (("ours", ours), ("peer", peer), ("ratio", ratio))
    }
    return {"name": name, **rounded, "unit": unit, "goal": f"{sign} {bound:g}", "met": bool(met), "note": note}


def seconds(work: Callable[[], Any], repetitions: int = 1) -> float:
    """The shortest of some runs: what other programs on the machine disturbed least."""
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
