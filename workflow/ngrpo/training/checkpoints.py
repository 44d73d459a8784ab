"""Checkpoints that are whole or not used, the best policy so far, and a lease: one trainer a run folder.

```
runs/{run}/checkpoints/checkpoint.json     whose spec, which step is whole, best step and score; written last, at once
runs/{run}/checkpoints/global_step_{n}/    verl's own files: weights, optimizer, schedule, random state
runs/{run}/checkpoints/best_{n}/           a Hugging Face folder: the policy with the best validation score
runs/{run}/lease.json                      who trains here: host, process, job, heartbeat
```

checkpoint.json is the one point of commitment: what it doesn't name was never there for a resumed run, and is deleted.
So a kill at any moment leaves the last checkpoint together with the best policy as of that checkpoint.
"""

import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json

LEASE_SECONDS = 120.0  # a heartbeat older than this is a dead trainer's
STOP = "stop"  # a file in the run folder: the trainer finishes its step, saves it, and ends


class Checkpoints:
    """One run's checkpoints, as the trainer sees them: the committed ones, and the best policy since."""

    def __init__(self, run_dir: Path, spec: str):
        self.run_dir, self.spec = run_dir, spec
        self.folder = run_dir / "checkpoints"
        self._card = self.folder / "checkpoint.json"
        found = read_json(self._card) if self._card.exists() else None
        self.step: int = 0
        self.best: dict | None = None
        if found is not None and found["spec"] == spec:
            self.step, self.best = found["step"], found["best"]

    def best_model(self, step: int) -> Path:
        """Where the policy of a step lies, or will lie, if it is the best."""
        return self.folder / f"best_{step}"

    def prepare(self) -> int:
        """Leave nothing but the last whole checkpoint, in a form that verl resumes from; returns its step, or 0.

        A checkpoint of another spec is moved aside with all that its run left, so that nothing is lost or mixed.
        """
        if self._card.exists() and read_json(self._card)["spec"] != self.spec:
            self._set_aside(read_json(self._card))
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / "latest_checkpointed_iteration.txt"
        if self.step:
            marker.write_text(str(self.step))
        else:
            marker.unlink(missing_ok=True)
        self._prune()
        return self.step

    def commit(self, step: int) -> None:
        """Declare step's files whole, together with the best policy so far, and drop older ones."""
        for path in (*self.folder.glob(f"global_step_{step}/**/*"), *self.folder.glob("best_*/*")):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        write_json(self._card, {"spec": self.spec, "step": step, "best": self.best})
        self.step = step
        self._prune()

    def is_better(self, score: float) -> bool:
        """Whether this score is the best so far; ties go to the earlier step."""
        return self.best is None or score > self.best["score"]

    def declare_best(self, score: float, step: int) -> None:
        """Note that best_model(step) holds the best policy; the next commit makes it last."""
        self.best = {"step": step, "score": score}

    def _prune(self) -> None:
        kept = {f"global_step_{self.step}"} | ({f"best_{self.best['step']}"} if self.best else set())
        for pattern in ("global_step_*", "best_*", ".best_*"):
            for old in self.folder.glob(pattern):
                if old.name not in kept:
                    shutil.rmtree(old)

    def _set_aside(self, found: dict) -> None:
        aside = self.run_dir / "superseded" / found["spec"]
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{found['spec']}.{number}")
        aside.mkdir(parents=True)
        for name in (
            "metrics.jsonl",
            "verl.json",
            "train.log",
            "checkpoints",
        ):  # the card last: a kill on the way is mended
            if (self.run_dir / name).exists():
                os.replace(self.run_dir / name, aside / name)
        print(f"[train] this folder held another spec's run (at step {found['step']}): moved to {aside}", flush=True)


def _started(pid: int) -> str | None:
    """When a process of this host started, in its kernel's ticks; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


class Lease:
    """One trainer a run folder: a file with host, process, job and heartbeat; a context manager.

    Raises UserError where another living trainer holds it. A holder whose heartbeat is old, or whose process on this
    host is gone, is dead. A trainer that finds its lease taken (it was suspended, say) sets `lost` and gets a SIGTERM.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / "lease.json"
        self.me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID", "none"),
        }
        self.lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _is_alive(self, held: dict) -> bool:
        if time.time() - held["heartbeat"] > LEASE_SECONDS:
            return False
        return held["host"] != self.me["host"] or _started(held["pid"]) == held["started"]

    def _held(self) -> dict | None:
        """What the lease says, None where there is none."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _mine(self) -> bool:
        held = self._held()
        return held is not None and {**self.me, "heartbeat": held["heartbeat"]} == held

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            if not self._mine():
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            write_json(self.path, {**self.me, "heartbeat": time.time()})

    def __enter__(self) -> "Lease":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        claim = self.path.with_name(f".lease.{self.me['host']}.{self.me['pid']}")
        write_json(claim, {**self.me, "heartbeat": time.time()})
        try:
            self._take(claim)
        finally:
            claim.unlink(missing_ok=True)
        self._thread.start()
        return self

    def _take(self, claim: Path) -> None:
        """Link the claim to the lease's name, which only one of several trainers can do."""
        while True:
            try:
                os.link(claim, self.path)
                return
            except FileExistsError:
                held = self._held()
            if held is None:
                continue
            if self._is_alive(held):
                raise UserError(
                    f"another trainer works in this run folder: process {held['pid']} on {held['host']}, "
                    f"job {held['job']}",
                    where=self.path.parent,
                    do=f"wait for it, or end it; a dead trainer's lease runs out {LEASE_SECONDS:.0f} s after its "
                    "heartbeat",
                )
            self._drop(held)

    def _drop(self, dead: dict) -> None:
        """Remove a dead trainer's lease, unless a living one has replaced it by now."""
        aside = self.path.with_name(f".lease.dead.{self.me['host']}.{self.me['pid']}")
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return  # another trainer was faster
        if read_json(aside) != dead and not self.path.exists():
            os.link(aside, self.path)
        aside.unlink()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._mine():
            self.path.unlink()
