"""Sets of real numbers as unions of intervals: union, intersection, complement, equality."""

from dataclasses import dataclass

from ngrpo.grading.second.evaluation import CONTEXT, Undefined, Value, close, inexact

INFINITY = CONTEXT.inf


@dataclass(frozen=True)
class Interval:
    """From low to high; whether each end belongs to it."""

    low: Value
    has_low: bool
    high: Value
    has_high: bool

    def empty(self) -> bool:
        """Whether nothing lies in it."""
        if close(self.low, self.high):
            return not (self.has_low and self.has_high)
        return bool(self.low > self.high)


Region = tuple[Interval, ...]
"""Intervals in order that neither overlap nor touch."""
EVERYTHING: Region = (Interval(-INFINITY, False, INFINITY, False),)
NOTHING: Region = ()


def interval(low: Value, has_low: bool, high: Value, has_high: bool) -> Region:
    """One interval as a region. Raises Undefined for ends that are no real numbers."""
    low, high = _real(low), _real(high)
    return united([Interval(low, has_low and not CONTEXT.isinf(low), high, has_high and not CONTEXT.isinf(high))])


def _real(value: Value) -> Value:
    number = inexact(value)
    if abs(CONTEXT.im(number)) > 0 or CONTEXT.isnan(number):
        raise Undefined("not a real number")
    return CONTEXT.re(number)


def united(intervals: list[Interval]) -> Region:
    """The union of any intervals."""
    result: list[Interval] = []
    for new in sorted((i for i in intervals if not i.empty()), key=lambda i: (i.low, not i.has_low)):
        last = result[-1] if result else None
        touches = last is not None and (
            last.has_high or new.has_low if close(new.low, last.high) else new.low < last.high
        )
        if last is None or not touches:
            result.append(new)
        elif close(last.high, new.high):
            result[-1] = Interval(last.low, last.has_low, last.high, last.has_high or new.has_high)
        elif new.high > last.high:
            result[-1] = Interval(last.low, last.has_low, new.high, new.has_high)
    return tuple(result)


def complement(region: Region) -> Region:
    """The reals that don't belong to a region."""
    low, has_low = -INFINITY, False
    gaps = []
    for part in region:
        gaps.append(Interval(low, has_low, part.low, not part.has_low and not CONTEXT.isinf(part.low)))
        low, has_low = part.high, not part.has_high and not CONTEXT.isinf(part.high)
    gaps.append(Interval(low, has_low, INFINITY, False))
    return united([gap for gap in gaps if not (CONTEXT.isinf(gap.low) and gap.low == gap.high)])


def intersection(a: Region, b: Region) -> Region:
    """What belongs to both."""
    return complement(united([*complement(a), *complement(b)]))


def same_region(a: Region, b: Region) -> bool:
    """Whether two regions hold the same numbers."""
    return len(a) == len(b) and all(
        close(x.low, y.low) and close(x.high, y.high) and (x.has_low, x.has_high) == (y.has_low, y.has_high)
        for x, y in zip(a, b, strict=True)
    )
