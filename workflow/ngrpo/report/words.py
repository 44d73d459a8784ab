"""Numbers and names as a reader of the page sees them: percent, points, times; a dash where there is none."""

import pandas as pd

from ngrpo.audit.provenance import plain
from ngrpo.report.tables import AVERAGE
from ngrpo.study.expand import Study


def percent(share: float | None) -> str:
    """A share in percent with one decimal; a dash where there is none."""
    return "–" if share is None or pd.isna(share) else f"{100 * share:.1f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed, with a true minus."""
    return "–" if difference is None or pd.isna(difference) else signed(100 * difference, 1)


def signed(number: float, decimals: int) -> str:
    """A number with its sign; a zero after rounding has none."""
    text = f"{number:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def short(number: float | None, digits: int = 3) -> str:
    """A number in a few significant digits; a dash where there is none."""
    return "–" if number is None or pd.isna(number) else plain(float(f"{number:.{digits}g}"))


def effect(value: float, unit: str) -> str:
    """An effect in its unit: points (signed), percent (share) or four digits."""
    if unit == "points":
        return points(value)
    return f"{percent(value)} %".replace("-", "−") if unit == "share" else short(value)


def p_value(p: float) -> str:
    """A p value in two digits; below 1 in 10,000, as sampled tests can't resolve it, only that."""
    return "< 0.0001" if p < 1e-4 else short(p, 2)


def duration(seconds: float | None) -> str:
    """A time as h, min and s; a dash where there is none."""
    if seconds is None or pd.isna(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def title_of(study: Study, kind: str, name: str) -> str:
    """How the page names a model or benchmark. kind: "model" or "benchmark"; name: its id, or the average."""
    if name == AVERAGE:
        return "average of the benchmarks"
    source = study.size.datasets[name] if kind == "benchmark" else study.size.models[name]
    return source.title or name
