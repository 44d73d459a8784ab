"""One line of the report: what was looked at, and which scales it stops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCALES = ("toy", "smoke", "single", "paper")
ON_GPUS = ("single", "paper")
"""Scales that need one."""


def scales_of(config: Path) -> tuple[str, ...]:
    """The project's scales, and the user's own in a configuration folder."""
    own = sorted(path.stem for path in (config / "scales").glob("*.yaml"))
    return (*SCALES, *(name for name in own if name not in SCALES))


@dataclass(frozen=True)
class Diagnosis:
    """One line of the doctor's report; do: what mends it (empty where all is well); stops: scales that can't run so."""

    what: str
    state: str
    do: str = ""
    stops: tuple[str, ...] = ()

    def __str__(self) -> str:
        stops = f" [stops {', '.join(self.stops)}]" if self.stops else ""
        return f"{self.what} | {self.state}{stops} | {self.do or '-'}"


def short_of(value: float, needed: dict[str, float]) -> tuple[str, ...]:
    """The scales that need more than this."""
    return tuple(scale for scale in SCALES if value < needed.get(scale, 0))
