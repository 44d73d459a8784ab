"""Axes of panels: what of a quantity is drawn, where a value lies on it, and which ticks name it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

FREE = 0.05
"""Of an axis, left free at either end."""
MOST_TICKS = 6
STEPS = (1, 2, 5, 10)
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """One axis, from low to high; ticks: (value, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, values: np.ndarray | float) -> np.ndarray:
        """Where values lie: 0 at the low end, 1 at the high one."""
        low, high, values = self.low, self.high, np.asarray(values, dtype=float)
        if self.log:
            low, high, values = np.log(low), np.log(high), np.log(values)
        return (values - low) / (high - low)


def linear(
    values: np.ndarray,
    *,
    low: float | None = None,
    high: float | None = None,
    percent: bool = False,
    whole: bool = False,
) -> Axis:
    """An axis on which all values (any shape, finite ones count) lie, with some room.

    low, high: ends in place of those that follow from the values. percent: values are shares and ticks say percent.
    whole: ticks are whole numbers.
    """
    ends = _ends(values)
    free = FREE * (ends[1] - ends[0]) or abs(ends[0]) * FREE or 1.0
    low = ends[0] - free if low is None else low
    high = ends[1] + free if high is None else high
    scale = 100 if percent else 1
    locator = MaxNLocator(MOST_TICKS, steps=STEPS, integer=whole)
    places = [float(v) for v in locator.tick_values(scale * low, scale * high)]
    inside = [v for v in places if scale * low - 1e-9 <= v <= scale * high + 1e-9]
    texts = _texts(inside)
    return Axis(low, high, tuple((v / scale, f"{t} %" if percent else t) for v, t in zip(inside, texts, strict=True)))


def logarithmic(values: np.ndarray) -> Axis:
    """A logarithmic axis on which all positive values lie; ticks are powers of ten, or 1, 2 and 5 times those."""
    low, high = _ends(values[values > 0])
    free = max((high / low) ** FREE, 1.05)
    low, high = low / free, high * free
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    inside = [(10.0**p, f"10{str(p).translate(_RAISED)}") for p in powers if low <= 10.0**p <= high]
    if len(inside) < 2:
        finer = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
        inside = [(v, f"{v:g}") for v in finer if low <= v <= high]
    step = -(-len(inside) // MOST_TICKS) or 1
    return Axis(low, high, tuple(inside[::step]), log=True)


def doublings(values: Sequence[int]) -> Axis:
    """A logarithmic axis whose ticks are the values themselves, as the k of Pass@k."""
    low, high = min(values), max(values)
    free = (high / low) ** (FREE / 2) if high > low else 2.0
    return Axis(low / free, high * free, tuple((float(v), str(v)) for v in values), log=True)


def at_values(values: Sequence[float]) -> Axis:
    """An axis whose ticks are the values themselves."""
    plain = linear(np.array(values, dtype=float))
    return Axis(plain.low, plain.high, tuple((float(v), f"{v:g}") for v in values))


def rows(labels: Sequence[str]) -> Axis:
    """A row a label, the first on top."""
    return Axis(len(labels) - 0.5, -0.5, tuple((float(i), label) for i, label in enumerate(labels)))


def _ends(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _texts(values: Sequence[float]) -> list[str]:
    """Ticks with as many decimals as tell them apart; a step of 1, 2 or 5 needs no more than its own."""
    steps = np.diff(values)
    step = float(steps.min()) if len(steps) else abs(values[0]) if values else 0.0
    decimals = max(0, -int(np.floor(np.log10(step) + 1e-9))) if step else 0
    largest = max(map(abs, values), default=0.0)
    if step and (largest < 1e-3 or largest >= 1e6):
        return [f"{v:.{2 if v else 0}g}".replace("-", "−") for v in values]
    return [f"{0.0 if abs(v) < step / 1e6 else v:.{decimals}f}".replace("-", "−") for v in values]
