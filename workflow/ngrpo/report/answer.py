"""The page's first screen: what was claimed, what was seen and how sure, as one sentence and one forest plot.

A row is a claim that was run: the effect by which it is decided, its interval for both
questions, the paper's value. Places on the plot are percent of its width; the template draws them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from ngrpo.claims.at_scale import PAPER
from ngrpo.claims.evidence import ShownEffect
from ngrpo.claims.verdicts import ClaimResult
from ngrpo.formatting import effect, points
from ngrpo.report.summary import claim_counts
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.expand import Study

TICKS = 7
MARGIN = 0.06
"""Of the axis, left free at either end."""


@dataclass(frozen=True)
class PlacedInterval:
    """An interval on the plot, in percent of its width; whether it goes on beyond either end."""

    low: float
    high: float
    open_low: bool
    open_high: bool


@dataclass(frozen=True)
class ForestRow:
    """A claim's line of the plot."""

    claim: ClaimResult
    shown: ShownEffect
    more: int
    """Further effects that the claim needs, which are seen in its evidence."""
    at: float
    here: PlacedInterval
    """On these benchmarks."""
    beyond: PlacedInterval | None
    """On problems like these."""
    margin: PlacedInterval | None
    """Within which the claim has to lie."""
    paper: float | None
    """The paper's value."""


@dataclass(frozen=True)
class FirstScreen:
    """The first screen."""

    sentence: str
    families: list[tuple[str, list[ForestRow]]]
    ticks: list[tuple[float, str]]
    """(place, value) on the axis; it is in points."""
    zero: float
    waiting: int
    """Claims whose evidence is missing."""
    quantity: str = ""
    """What the sentence's numbers are of."""


@dataclass(frozen=True)
class _Axis:
    """The plot's ends, as shares."""

    low: float
    high: float

    @classmethod
    def of(cls, drawn: Sequence[tuple[ClaimResult, ShownEffect]]) -> "_Axis":
        """Intervals on these benchmarks and the paper's values fit; those on problems like these may be cut."""
        marks = [mark for one in drawn for mark in _marks(*one)]
        values = [0.0, *(end for _, shown in drawn for end in (shown.low, shown.high)), *marks]
        low, high = min(values), max(values)
        free = MARGIN * ((high - low) or 0.1)
        return cls(low - free, high + free)

    def place(self, value: float) -> float:
        """Percent of the width; what lies beyond is put at the end."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)

    def span(self, low: float, high: float) -> PlacedInterval:
        """An interval's places."""
        return PlacedInterval(self.place(low), self.place(high), low < self.low, high > self.high)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, value in points)."""
        values = MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(100 * self.low, 100 * self.high)
        whole = all(float(value).is_integer() for value in values)
        inside = [value / 100 for value in values if self.low <= value / 100 <= self.high]
        return [(self.place(value), points(value, 0 if whole else 1)) for value in inside]


def answer(study: Study, claims: Sequence[ClaimResult]) -> FirstScreen:
    """The first screen of a study's page."""
    judged = [claim for claim in claims if claim.verdict is not None]
    seen = [claim for claim in judged if claim.verdict != "not run"]
    drawn = [(claim, least_shown(claim)) for claim in seen if any(part.unit == "points" for part in claim.parts)]
    axis = _Axis.of(drawn)
    of_family = {claim.family: claim.where.partition(",")[0] for claim, _ in reversed(drawn)}  # its first claim's
    families: dict[str, list[ForestRow]] = {}
    for claim, shown in drawn:
        families.setdefault(of_family[claim.family], []).append(_row(claim, shown, axis))
    sentence, waiting = _sentence(study, judged, drawn), len(judged) - len(seen)
    quantity = drawn[0][1].quantity if drawn else ""
    return FirstScreen(sentence, list(families.items()), axis.ticks(), axis.place(0.0), waiting, quantity)


def _marks(claim: ClaimResult, shown: ShownEffect) -> tuple[float, ...]:
    """What is marked beside an effect: a margin's two ends, or the paper's value where the claim is the paper's."""
    if shown.margin:
        return -shown.paper, shown.paper
    return (shown.paper,) if claim.scale == PAPER == shown.reference else ()


def least_shown(claim: ClaimResult) -> ShownEffect:
    """Of the effects that a claim needs, the one that is shown least; of several that aren't differences, the first."""
    return max((part for part in claim.parts if part.unit == "points"), key=_doubt, default=claim.parts[0])


def _doubt(part: ShownEffect) -> float:
    if part.margin:
        return max(abs(part.low), abs(part.high))
    p = 1.0 if part.p is None else part.p
    return p if part.estimate > 0 else 2 - p


def _row(claim: ClaimResult, shown: ShownEffect, axis: _Axis) -> ForestRow:
    beyond = None if shown.beyond is None else axis.span(shown.beyond.low, shown.beyond.high)
    here, marks = axis.span(shown.low, shown.high), _marks(claim, shown)
    margin, paper = axis.span(*marks) if shown.margin else None, axis.place(marks[0]) if len(marks) == 1 else None
    return ForestRow(claim, shown, len(claim.parts) - 1, axis.place(shown.estimate), here, beyond, margin, paper)


def _sentence(study: Study, judged: Sequence[ClaimResult], drawn: Sequence[tuple[ClaimResult, ShownEffect]]) -> str:
    """What the first claim came to, and how many others came to what."""
    if not judged:
        return "This configuration has no claim that this scale judges."
    whose = "" if study.size.verdicts else f"No claim of the paper is judged at scale {study.scale}; of its own "
    counts = ", ".join(f"{count} {verdict}" for verdict, count in claim_counts(judged))
    counted = f"{len(judged)} claim{'s' if len(judged) > 1 else ''}: {counts}."
    if not drawn:
        return f"{whose}{counted} None has its evidence yet."
    claim, shown = drawn[0]
    interval = f"95 % interval {effect(shown.low, shown.unit)} to {effect(shown.high, shown.unit)} {QUESTIONS[0]}"
    if shown.beyond:
        low, high = (effect(value, shown.unit) for value in (shown.beyond.low, shown.beyond.high))
        interval += f", {low} to {high} {QUESTIONS[1]}"
    paper = f"; the paper has {effect(shown.paper, shown.unit)}" if len(_marks(claim, shown)) == 1 else ""
    value = effect(shown.estimate, shown.unit)
    verdict = f"{claim.verdict[:1].upper()}{claim.verdict[1:]}" if claim.verdict else ""
    return f"“{claim.says}” {verdict}: {shown.what}: {value} points ({interval}{paper}). {whose}{counted}"
