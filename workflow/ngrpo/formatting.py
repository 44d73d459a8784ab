"""Numbers as every table, page and command writes them: percent, points, signs, times; a dash where there is none."""

import math
from typing import Any

ABSENT = "–"


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in percent, with a true minus where it lies below 0."""
    return ABSENT if share is None or math.isnan(share) else fixed(100 * share, decimals)


def percent_range(low: float | None, high: float | None, decimals: int = 1) -> str:
    """An interval of shares in percent."""
    return ABSENT if low is None or math.isnan(low) else f"{percent(low, decimals)} to {percent(high, decimals)}"


def points(difference: float | None, decimals: int = 1) -> str:
    """A difference of shares in percentage points, signed, with a true minus."""
    return ABSENT if difference is None or math.isnan(difference) else signed(100 * difference, decimals)


def fixed(number: float, decimals: int) -> str:
    """A number with so many decimals, and a true minus."""
    return f"{number:.{decimals}f}".replace("-", "−")


def signed(number: float, decimals: int) -> str:
    """A number with its sign; a zero after rounding has none."""
    text = f"{number:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def short(number: float | None, digits: int = 3) -> str:
    """A number in a few significant digits."""
    return ABSENT if number is None or math.isnan(number) else plain(float(f"{number:.{digits}g}"))


def count(number: float | None) -> str:
    """A whole number."""
    return ABSENT if number is None or math.isnan(number) else f"{int(number)}"


def effect(value: float, unit: str) -> str:
    """An effect in its unit: points (signed), percent (share) or four digits."""
    if unit == "points":
        return points(value)
    return f"{percent(value)} %" if unit == "share" else short(value)


def p_value(p: float) -> str:
    """A p value in two digits; below 1 in 10,000, as sampled tests can't resolve it, only that."""
    return "< 0.0001" if p < 1e-4 else short(p, 2)


def duration(seconds: float | None) -> str:
    """A time as h, min and s."""
    if seconds is None or math.isnan(seconds):
        return ABSENT
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def plain(value: Any) -> str:
    """A setting's value as a reader writes it: 1e-06 as 1e-6, true as yes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.6g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return str(value)


def size_text(number: float) -> str:
    """Bytes in the largest decimal unit that fits: 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB" if number < 100 else f"{number:.0f} TB"


def seeds_text(counts: set[int]) -> str:
    """How many training seeds runs have. counts: those that occur."""
    if counts <= {1}:
        return "one seed each"
    return f"{min(counts)} to {max(counts)} seeds each" if len(counts) > 1 else f"{max(counts)} seeds each"
