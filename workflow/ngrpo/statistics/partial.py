""" "In at least u of n cells": a verdict on a partial conjunction (Benjamini & Heller 2008, Biometrics 64:1215).

A cell holds where all of its effects are above 0 (an intersection-union test: each at the whole level). That at least u
of n cells hold is rejected by mistake with at most the level where each is tested at level/(n − u + 1): Bonferroni's
over the n − u + 1 cells that could all be false. That fewer hold is the same question with n − u + 1 cells of n.
"""

from collections.abc import Sequence

from ngrpo.statistics.decisions import CONFIDENCE, VERDICTS, Effect


def judge_cells(cells: Sequence[Sequence[tuple[Effect, float]]], at_least: int, replicated: bool) -> str:
    """The verdict on "in at least so many of these cells every effect is above 0".

    cells: each one's effects with the size that an effect of interest has. replicated: whether every trained policy
    comes with enough seeds; without, nothing is decided.
    """
    if not replicated:
        return "underpowered"
    missable = len(cells) - at_least
    level = (1 - CONFIDENCE) / (missable + 1)
    holds = [all(effect.interval(1 - level)[0] > 0 for effect, _ in cell) for cell in cells]
    if sum(holds) >= at_least:
        return "supported"
    fails = [
        any(effect.interval(1 - (1 - CONFIDENCE) / (at_least * len(cell)))[1] < 0 for effect, _ in cell)
        for cell in cells
    ]
    if sum(fails) > missable:
        return "contradicted"
    # a cell is blind where a lead of interest might have been missed
    blind = [not h and any(e.detectable > size for e, size in cell) for h, cell in zip(holds, cells, strict=True)]
    verdict = "underpowered" if sum(holds) + sum(blind) >= at_least else "not supported"
    assert verdict in VERDICTS
    return verdict
