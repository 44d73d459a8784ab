""" "In at least u of n cells": a verdict on a partial conjunction (Benjamini & Heller 2008, Biometrics 64:1215).

A cell holds where all of its effects are above 0 (an intersection-union test: each at the whole level). The p of "fewer
than u of n cells hold" is n − u + 1 times the u-th smallest p of a cell: Bonferroni's over the n − u + 1 cells that
could all be false. That fewer hold is the same question with n − u + 1 cells of n.
"""

from collections.abc import Sequence

import numpy as np

from ngrpo.statistics.decisions import LEVEL, VERDICTS, Weighed, verdict, weigh
from ngrpo.statistics.effects import QUESTIONS, Effect


def weigh_cells(
    cells: Sequence[Sequence[tuple[Effect, float]]], at_least: int, question: str = QUESTIONS[0]
) -> Weighed:
    """What is said of "in at least so many of these cells every effect is above 0". cells: each one's effects with the
    size that an effect of interest has."""
    each = [weigh(cell, question) for cell in cells]
    missable = len(cells) - at_least
    p_for = (missable + 1) * sorted(float(cell.p_for) for cell in each)[at_least - 1]
    p_against = at_least * sorted(float(cell.p_against) for cell in each)[missable]
    holds = [2 * (missable + 1) * float(cell.p_for) <= LEVEL for cell in each]
    # a cell is blind where a lead of interest might have been missed
    possible = sum(h or bool(cell.blind) for h, cell in zip(holds, each, strict=True))
    return Weighed(np.minimum(1.0, p_for), np.minimum(1.0, p_against), np.asarray(possible >= at_least))


def judge_cells(
    cells: Sequence[Sequence[tuple[Effect, float]]], at_least: int, replicated: bool, question: str = QUESTIONS[0]
) -> str:
    """The verdict on them, taken alone. replicated: whether every trained policy comes with enough seeds."""
    return VERDICTS[int(verdict(weigh_cells(cells, at_least, question), replicated))]
