"""How far every training run is, from what lies in its folder: for `ngrpo watch` and the live page.

Nothing is asked of a trainer. A run is being trained while its lease beats and, where it is of this host, its process
lives; what is logged is what counts after a kill, so a resumed run goes on where its checkpoint was.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Literal

from ngrpo.audit.status import steps_of
from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.formatting import ABSENT, duration
from ngrpo.study.layout import Results, RunFiles
from ngrpo.study.run_log import LOGGED, PHASES, read_metrics
from ngrpo.study.specs import RunSpec, read_spec
from ngrpo.terminal import quoted, text_table
from ngrpo.training.lease import is_trained, silence

RECENT = 20
"""Steps, the last ones, over which seconds and phases are taken."""
State = Literal["running", "starting", "finished", "failed", "stopped", "killed", "not started", "unreadable"]


@dataclass(frozen=True)
class WatchedRun:
    """One run as it is now."""

    id: str
    state: State
    note: str
    """Empty, or what to know of the state."""
    done: int = 0
    steps: int | None = None
    """Steps that it shall have; None where that isn't known yet."""
    reward: tuple[float, ...] = ()
    """Of every step."""
    mismatch: float | None = None
    """Mean |Δ log-prob| between rollout and trainer at the last step."""
    seconds: float | None = None
    """Of a step, the median of the last ones."""
    phases: tuple[tuple[str, float], ...] = ()
    """(phase, seconds): the means of the last steps, what is in no phase as "other"."""
    ends: float | None = None
    """When it will have all steps, in seconds since the epoch; None unless it runs."""


def watched(results: Results, specs: Mapping[str, RunSpec] | None = None) -> list[WatchedRun]:
    """Every run of a study as it is now. specs: the runs to look for; None: all that have a folder."""
    if specs is None:
        folders = sorted(path.parent for path in results.run("*").spec.parent.parent.glob("*/spec.json"))
        return [_run_in(results, folder.name) for folder in folders]
    return [watched_run(results, name, spec) for name, spec in specs.items()]


def _run_in(results: Results, name: str) -> WatchedRun:
    try:
        return watched_run(results, name, read_spec(results.run(name).spec, RunSpec))
    except UserError as e:
        return WatchedRun(name, "unreadable", e.what)


def watched_run(results: Results, name: str, spec: RunSpec) -> WatchedRun:
    """One run as it is now. A log that can't be read is said in the run's note."""
    files = results.run(name)
    try:
        rows = {row["step"]: row for row in read_metrics(files.metrics)}
        state, note = _state(files, spec, bool(rows))
        steps = steps_of(spec, results)
    except UserError as e:
        return WatchedRun(name, "unreadable", f"{e.what} ({e.where})")
    ordered = [rows[step] for step in sorted(rows)]
    done, seconds = max(rows, default=0), _numbers(ordered, LOGGED["seconds"])[-RECENT:]
    each = median(seconds) if seconds else None
    left = None if steps is None or each is None else max(0, steps - done) * each
    return WatchedRun(
        name,
        state,
        note,
        done,
        steps,
        tuple(_numbers(ordered, LOGGED["reward"])),
        next(iter(_numbers(ordered, LOGGED["parity_mean"])[-1:]), None),
        each,
        phases(ordered[-RECENT:]),
        time.time() + left if left is not None and state == "running" else None,
    )


def _state(files: RunFiles, spec: RunSpec, some_steps: bool) -> tuple[State, str]:
    """What a run's folder says of it, and a note. Raises UserError for a card that can't be read."""
    if files.model_card.exists():
        if read_json(files.model_card).get("spec") == spec.digest:
            return "finished", ""
        return "stopped", "its folder holds a run of other settings"
    if is_trained(files):
        return ("running", "") if some_steps else ("starting", "no step is done yet")
    if files.failure.exists():
        failure = read_json(files.failure)
        if failure.get("spec") == spec.digest:
            return "failed", f"{quoted(failure.get('what'))} at step {failure.get('step')}"
    if (quiet := silence(files)) is not None:
        return "killed", f"no sign of life for {duration(quiet)}; the same command goes on at its last checkpoint"
    if some_steps:
        return "stopped", "the same command goes on at its last checkpoint"
    return "not started", ""


def _numbers(rows: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def phases(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, float], ...]:
    """(phase, seconds) of a step, means over these steps; what no phase has is "other". rows: of metrics.jsonl."""
    timed = [row for row in rows if row.get(LOGGED["seconds"]) is not None]
    if not timed:
        return ()
    means = {phase: sum(_numbers(timed, key)) / len(timed) for phase, key in PHASES.items()}
    rest = sum(_numbers(timed, LOGGED["seconds"])) / len(timed) - sum(means.values())
    return tuple((phase, seconds) for phase, seconds in {**means, "other": max(0.0, rest)}.items() if seconds > 0)


# --- in a terminal ---


def watch_text(runs: Iterable[WatchedRun]) -> str:
    """Runs as a table: state, steps, reward, mismatch, seconds a step, expected end; then where a step's time goes.

    Those that haven't begun are counted.
    """
    rows, notes, waiting = [], [], 0
    for run in runs:
        if run.state == "not started":
            waiting += 1
            continue
        rows.append(
            [
                run.id,
                run.state,
                f"{run.done}/{run.steps or '?'}",
                f"{run.reward[-1]:.3f}" if run.reward else ABSENT,
                ABSENT if run.mismatch is None else f"{run.mismatch:.1e}",
                ABSENT if run.seconds is None else f"{run.seconds:.1f}",
                clock(run.ends),
            ]
        )
        if run.note:
            notes.append(f"{run.id}: {run.note}")
        if run.phases and run.state == "running":
            total = sum(seconds for _, seconds in run.phases)
            shares = ", ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in run.phases)
            notes.append(f"{run.id}: a step is {shares}")
    if waiting:
        notes.append(f"{waiting} {'more ' if rows else ''}not started")
    head = ["run", "state", "step", "reward", "mismatch", "s/step", "ends about"]
    return "\n\n".join(["\n".join(part) for part in ([text_table(head, rows)] if rows else [], notes) if part])


def clock(at: float | None) -> str:
    """A time of this machine's clock."""
    return ABSENT if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")
