"""How far a stage is, as plain lines that read well in a terminal, a log file and a job's output alike."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from ngrpo.terminal import echo

T = TypeVar("T")


def steps(items: Sequence[T], label: str, unit: str, *, every: float = 5.0) -> Iterator[T]:
    """Go through items; every so many seconds, and at the end of a longer run, print how many are done."""
    began = shown = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= every:
            left = (now - began) / done * (len(items) - done)
            echo(f"{label} {done}/{len(items)} {unit}, about {left:.0f} s left")
            shown = now
        yield item
    if shown > began:
        echo(f"{label} {len(items)}/{len(items)} {unit} in {time.monotonic() - began:.0f} s")


def counter(label: str, unit: str, *, every: float = 5.0) -> Callable[[int, int], None]:
    """A function of (done, total) that prints to stderr, at most every so many seconds, how many are done."""
    began = shown = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal began, shown
        now = time.monotonic()
        if done <= 1:
            began = now
        if now - shown >= every:
            left = (now - began) / max(1, done) * (total - done)
            echo(f"{label} {done:,}/{total:,} {unit}, about {left:.0f} s left", err=True)
            shown = now

    return report
