"""report/live.html: every run of a study as it is now, written each minute by whoever trains, read without a server.

The page renews itself in the browser. It says when it was written; nobody writes it any more once nothing trains, so
one that is older than a few minutes says so itself where scripts run, and in words where they don't.
"""

import contextlib
import html
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ngrpo.background import beside
from ngrpo.files import whole_file
from ngrpo.formatting import ABSENT
from ngrpo.study.layout import Results
from ngrpo.terminal import printable
from ngrpo.training.watching import WatchedRun, clock, watched

EVERY = 60.0
"""Seconds between two pages."""
OLD = 180
"""Seconds after which a page is no news."""
COLORS = ("#0069a8", "#c2500a", "#007a5a", "#9c3f86", "#7a5c00", "#3d5a80", "#b3261e", "#6b6f76")
WIDTH, HEIGHT = 180, 34
STYLE = """
:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
padding: 0 1rem; } h1 { font-size: 1.4rem; } .runs { overflow-x: auto; } table { border-collapse: collapse; width: 100%;
font-variant-numeric: tabular-nums; } th, td { text-align: left; padding: .45rem .8rem .45rem 0;
vertical-align: top; border-top: 1px solid #8886; } thead th { border: 0; } svg { display: block; }
small { display: block; font-weight: 400; } .old { border-left: .3rem solid #b3261e; padding: .5rem .8rem; }
.keys { list-style: none; padding: 0; display: flex;
flex-wrap: wrap; gap: .2rem 1.2rem; } .keys svg { display: inline-block; margin-right: .35rem; }
"""
SCRIPT = (
    "const age=()=>{{const old=Date.now()/1000-{written:.0f}>{old};document.getElementById('old').hidden=!old}};"
    "age();setInterval(age,5000);setTimeout(()=>location.reload(),{every:.0f})"
)


@contextlib.contextmanager
def live_page(results: Results) -> Iterator[None]:
    """Keep the live page of these results while a run is trained, and write it once more when that is over."""

    def follow(over: threading.Event) -> None:
        write_live_page(results)
        while not over.wait(EVERY):
            write_live_page(results)
        write_live_page(results)

    with beside(follow):
        yield


def write_live_page(results: Results) -> None:
    """Write the page. A disk that refuses it costs no training: the next minute may find room."""
    with contextlib.suppress(OSError):
        path: Path = results.report.live
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(live_html(watched(results), results.root.name, time.time()), encoding="utf-8")


def live_html(runs: Iterable[WatchedRun], scale: str, now: float) -> str:
    """The page's HTML. now: when it is written, in seconds since the epoch."""
    runs = list(runs)
    names = list(dict.fromkeys(phase for run in runs for phase, _ in run.phases))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    keys = "".join(f"<li>{_swatch(colors[name])}{_text(name)}</li>" for name in names)
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Run", "State", "Step", "Reward", "Mismatch", "Seconds a step", "Ends about")
    )
    rows = "".join(_row(run, colors) for run in runs)
    script = SCRIPT.format(written=now, old=OLD, every=1000 * EVERY)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<noscript><meta http-equiv="refresh" content="{EVERY:.0f}"></noscript>
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Trainings of {_text(scale)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Trainings at scale {_text(scale)}</h1>
<p>Written {_text(clock(now))} by a trainer, each minute while one is at work. Where that is minutes ago, none is any
more, whatever is said below; <code>ngrpo watch</code> looks itself.</p>
<p class="old" id="old" role="status" hidden>This page is old: for more than {OLD // 60} minutes no trainer has written
it.</p>
<div class="runs" role="region" aria-label="Runs" tabindex="0"><table>
<thead><tr>{head}</tr></thead>
<tbody>{rows}</tbody>
</table></div>
<h2>Where a step’s time goes</h2>
<ul class="keys">{keys or "<li>nothing is logged yet</li>"}</ul>
<p>Mismatch: mean |Δ log-prob| between rollout and trainer at the last step. Seconds: the median of the last steps;
bars: their phases.</p>
</main>
<script>{script}</script>
</body>
</html>
"""


def _text(value: object) -> str:
    return html.escape(printable(value))


def _row(run: WatchedRun, colors: dict[str, str]) -> str:
    reward = f"{run.reward[-1]:.3f}{_curve(run.reward)}" if run.reward else ABSENT
    mismatch = ABSENT if run.mismatch is None else f"{run.mismatch:.1e}"
    seconds = ABSENT if run.seconds is None else f"{run.seconds:.1f}{_bar(run, colors)}"
    note = f"<small>{_text(run.note)}</small>" if run.note else ""
    cells = (f"{_text(run.state)}{note}", f"{run.done} of {run.steps or '?'}", reward, mismatch, seconds)
    return (
        f'<tr><th scope="row">{_text(run.id)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in (*cells, _text(clock(run.ends))))
        + "</tr>"
    )


def _curve(values: tuple[float, ...]) -> str:
    """Rewards over steps as a small line from 0 to 1."""
    last = max(1, len(values) - 1)
    points = [
        f"{WIDTH * i / last:.1f},{(HEIGHT - 2) * (1 - min(1.0, max(0.0, v))) + 1:.1f}" for i, v in enumerate(values)
    ]
    every = max(1, len(points) // WIDTH)
    said = f"Reward over steps, from {values[0]:.2f} to {values[-1]:.2f}"
    return (
        f'<svg role="img" aria-label="{said}" width="{WIDTH}" height="{HEIGHT}"><polyline fill="none" stroke="#0069a8"'
        f' stroke-width="1.6" points="{" ".join(points[::every])}"/></svg>'
    )


def _bar(run: WatchedRun, colors: dict[str, str]) -> str:
    """A step's phases as one stacked bar."""
    total, at, parts = sum(seconds for _, seconds in run.phases), 0.0, []
    for name, seconds in run.phases:
        width = WIDTH * seconds / total
        parts.append(f'<rect x="{at:.1f}" width="{width:.1f}" height="12" fill="{colors[name]}"/>')
        at += width
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.phases)
    drawn = "".join(parts)
    return f'<svg role="img" aria-label="{_text(said)}" width="{WIDTH}" height="12">{drawn}</svg>' if parts else ""


def _swatch(color: str) -> str:
    return f'<svg width="12" height="12" aria-hidden="true"><rect width="12" height="12" fill="{color}"/></svg>'
