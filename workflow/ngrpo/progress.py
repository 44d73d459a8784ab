"""How far a stage is, as plain lines that read well in a terminal, a log file and a job's output alike."""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def steps(items: Sequence[T], label: str, unit: str, *, every: float = 5.0) -> Iterator[T]:
    """Go through items; every so many seconds, and at the end of a longer run, print how many are done."""
    began = shown = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= every:
            left = (now - began) / done * (len(items) - done)
            print(f"{label} {done}/{len(items)} {unit}, about {left:.0f} s left", flush=True)
            shown = now
        yield item
    if shown > began:
        print(f"{label} {len(items)}/{len(items)} {unit} in {time.monotonic() - began:.0f} s", flush=True)
