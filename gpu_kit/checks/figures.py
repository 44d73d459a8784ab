"""The figures of a check: what was found, what is wanted, and whether it is so; kept after each."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = [str(ROOT / "tests" / part) for part in ("contract", "gpu")]
"""Folders whose helpers checks use; child processes find them on their path, too."""


class Figures:
    """Figures, written to a file after each: a check that is cut off keeps those that it has."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict] = []

    def add(
        self,
        what: str,
        value: float | str,
        unit: str = "",
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        equal: float | str | None = None,
    ) -> None:
        """One more; with a bound it is met or not, without one it is only told."""
        number = value if isinstance(value, str) else float(value) if isinstance(value, float) else int(value)
        wanted, met = "", None
        if at_most is not None:
            wanted, met = f"at most {at_most:g}", bool(value <= at_most)
        elif at_least is not None:
            wanted, met = f"at least {at_least:g}", bool(value >= at_least)
        elif equal is not None:
            wanted, met = str(equal), value == equal
        self.rows.append({"what": what, "value": number, "unit": unit, "wanted": wanted, "met": met})
        print(f"{what}: {number} {unit} {wanted and f'(wanted: {wanted})'}", flush=True)
        self.path.write_text(json.dumps(self.rows), encoding="utf-8")


def asked() -> Figures:
    """The figures of the check that this process is; the tests' helpers can be imported after it."""
    sys.path[:0] = [path for path in TESTS if path not in sys.path]
    return Figures(Path(sys.argv[1]))
