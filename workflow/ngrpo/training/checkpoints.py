"""Checkpoints that are whole or not used, the best one so far, and a lease that fences two trainers on one run folder.

```
runs/{run}/checkpoints/checkpoint.json         which step is whole, and whose spec it is; written after its files
runs/{run}/checkpoints/global_step_{n}/        verl's own files: weights, optimizer, schedule, random state
runs/{run}/checkpoints/best/                   a Hugging Face folder: the policy with the best validation score
runs/{run}/checkpoints/best.json               its step and score
```
"""

import os
import shutil
import socket
import threading
import time
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json

LEASE_SECONDS = 120.0  # a heartbeat older than this is a dead trainer's


class Checkpoints:
    """One run's checkpoints."""

    def __init__(self, run_dir: Path, spec: str):
        self.run_dir, self.spec = run_dir, spec
        self.folder = run_dir / "checkpoints"

    @property
    def best_model(self) -> Path:
        """The best policy's folder."""
        return self.folder / "best"

    def last_step(self) -> int:
        """The step of the last whole checkpoint, 0 without one.

        A checkpoint of another spec is moved aside with all that its run left, so that nothing is lost or mixed.
        """
        path = self.folder / "checkpoint.json"
        if not path.exists():
            return 0
        found = read_json(path)
        if found["spec"] == self.spec:
            return found["step"]
        aside = self.run_dir / "superseded" / found["spec"]
        aside.mkdir(parents=True, exist_ok=True)
        for name in ("checkpoints", "metrics.jsonl", "train.log"):
            if (self.run_dir / name).exists():
                os.replace(self.run_dir / name, _unused(aside / name))
        print(f"[train] this folder held another spec's run (at step {found['step']}): moved to {aside}", flush=True)
        return 0

    def prepare(self) -> int:
        """Make verl's own marker agree with the last whole checkpoint; returns its step."""
        step = self.last_step()
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / "latest_checkpointed_iteration.txt"
        if step:
            marker.write_text(str(step))
        else:
            marker.unlink(missing_ok=True)
        self._prune(step)
        return step

    def saved(self, step: int) -> None:
        """Declare step's files whole, and drop older ones."""
        write_json(self.folder / "checkpoint.json", {"spec": self.spec, "step": step})
        self._prune(step)

    def _prune(self, step: int) -> None:
        for old in self.folder.glob("global_step_*"):
            if old.name != f"global_step_{step}":
                shutil.rmtree(old)

    def best(self) -> dict | None:
        """The best policy's step and score, or None."""
        path = self.folder / "best.json"
        return read_json(path) if path.exists() else None

    def is_better(self, score: float, step: int) -> bool:
        """Whether this score is the best so far; ties go to the earlier step."""
        best = self.best()
        return best is None or score > best["score"] or (score == best["score"] and step <= best["step"])

    def declare_best(self, score: float, step: int) -> None:
        """Note that best_model now holds this step's policy."""
        write_json(self.folder / "best.json", {"spec": self.spec, "step": step, "score": score})


def _unused(path: Path) -> Path:
    """This path, or the first numbered one that isn't there."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}.{number}")
    return free


class Lease:
    """One trainer a run folder: a file with host, process, job and heartbeat; a context manager.

    Raises UserError where another living trainer holds it. A holder whose heartbeat is old, or whose process on this
    host is gone, is dead.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / "lease.json"
        self.me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", "none"),
        }
        self._stop = threading.Event()

    def _holder(self) -> dict | None:
        if not self.path.exists():
            return None
        held = read_json(self.path)
        if time.time() - held["heartbeat"] > LEASE_SECONDS:
            return None
        if held["host"] == self.me["host"] and not Path(f"/proc/{held['pid']}").exists():
            return None
        return held

    def _write(self) -> None:
        write_json(self.path, {**self.me, "heartbeat": time.time()})

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            self._write()

    def __enter__(self) -> "Lease":
        held = self._holder()
        if held is not None and {k: held[k] for k in self.me} != self.me:
            raise UserError(
                f"another trainer works in this run folder: process {held['pid']} on {held['host']}, job {held['job']}",
                where=self.path.parent,
                do=f"wait for it, or end it; a dead trainer's lease runs out {LEASE_SECONDS:.0f} s after its heartbeat",
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.path.unlink(missing_ok=True)
