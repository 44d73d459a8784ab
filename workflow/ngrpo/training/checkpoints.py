"""Checkpoints that are whole or not used, the best policy so far, and a lease: one trainer a run folder.

```
runs/{run}/checkpoints/checkpoint.json     whose spec; the last two whole checkpoints; written last, at once
runs/{run}/checkpoints/global_step_{n}/    verl's own files: weights, optimizer, schedule, random state
runs/{run}/checkpoints/best_{n}/           a Hugging Face folder: the policy with the best validation score
runs/{run}/lease.json                      who trains here: host, process, job, heartbeat
```

checkpoint.json is the one point of commitment: what it doesn't name was never there for a resumed run, and is deleted.
So a kill at any moment leaves the last checkpoint together with the best policy as of that checkpoint. Of each
checkpoint it says step, best policy, and every file's size: one that was cut short afterwards (a full disk, a broken
copy) is seen, and the one before it is used.
"""

import contextlib
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
        self.kept: list[dict] = []
        """The last one or two checkpoints, newest first: step, best, files (path → bytes)."""
        self.best: dict | None = None
        found = read_json(self._card) if self._card.exists() else None
        if found is not None and found["spec"] == spec:
            last = {"step": found["step"], "best": found["best"], "files": found.get("files", {})}
            self.kept = [last, found["before"]] if found.get("before") else [last]
            self.best = last["best"]

    @property
    def step(self) -> int:
        """The last committed step, or 0."""
        return self.kept[0]["step"] if self.kept else 0

    def best_model(self, step: int) -> Path:
        """Where the policy of a step lies, or will lie, if it is the best."""
        return self.folder / f"best_{step}"

    def prepare(self) -> int:
        """Leave nothing but whole checkpoints, in a form that verl resumes from; returns the last one's step, or 0.

        A checkpoint of another spec is moved aside with all that its run left, so that nothing is lost or mixed. Raises
        UserError where there are checkpoints and none is whole.
        """
        if self._card.exists() and read_json(self._card)["spec"] != self.spec:
            self._set_aside(read_json(self._card))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_broken()
        marker = self.folder / "latest_checkpointed_iteration.txt"
        if self.step:
            marker.write_text(str(self.step))
        else:
            marker.unlink(missing_ok=True)
        self._prune()
        return self.step

    def commit(self, step: int) -> None:
        """Declare step's files whole, together with the best policy so far; the checkpoint before is kept, too."""
        folders = [self.folder / f"global_step_{step}"]
        if self.best:
            folders.append(self.best_model(self.best["step"]))
        files = {}
        for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            files[str(path.relative_to(self.folder))] = path.stat().st_size
        self._write([{"step": step, "best": self.best, "files": files}, *self.kept[:1]])
        self._prune()

    def is_better(self, score: float) -> bool:
        """Whether this score is the best so far; ties go to the earlier step."""
        return self.best is None or score > self.best["score"]

    def declare_best(self, score: float, step: int) -> None:
        """Note that best_model(step) holds the best policy; the next commit makes it last."""
        self.best = {"step": step, "score": score}

    def _write(self, kept: list[dict]) -> None:
        write_json(self._card, {"spec": self.spec, **kept[0], "before": kept[1] if len(kept) > 1 else None})
        self.kept = kept

    def _drop_broken(self) -> None:
        """Forget checkpoints with a file that is missing or of another size."""
        whole = []
        for one in self.kept:
            broken = [name for name, size in one["files"].items() if _size(self.folder / name) != size]
            if broken:
                print(
                    f"[train] the checkpoint of step {one['step']} is not whole and not used: {broken[0]} has "
                    f"{_size(self.folder / broken[0])} of {one['files'][broken[0]]} bytes",
                    flush=True,
                )
            else:
                whole.append(one)
        if self.kept and not whole:
            raise UserError(
                f"no checkpoint of this run is whole; the last was made at step {self.step}",
                where=self.folder,
                do="put the files back, or move this folder and metrics.jsonl away: the run then starts at step 1",
            )
        if len(whole) < len(self.kept):
            self._write(whole)
            self.best = whole[0]["best"]

    def _prune(self) -> None:
        kept = {f"global_step_{one['step']}" for one in self.kept}
        kept |= {f"best_{one['best']['step']}" for one in self.kept if one["best"]}
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
        # the card last: a kill on the way is mended
        for name in ("metrics.jsonl", "verl.json", "train.log", "checkpoints"):
            if (self.run_dir / name).exists():
                os.replace(self.run_dir / name, aside / name)
        print(f"[train] this folder held another spec's run (at step {found['step']}): moved to {aside}", flush=True)


def _size(path: Path) -> int:
    """A file's bytes; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _started(pid: int) -> str | None:
    """When a process of this host started, in its kernel's ticks; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


def check_lease(run_dir: Path, holder: dict) -> None:
    """Raise UserError unless `holder` (a `Lease.me`) still has this run folder; asked before anything is written to it.

    Ray's processes can outlive the trainer that started them by seconds: what they'd write then would be another's.
    """
    held = _read(run_dir / "lease.json")
    here = holder["host"] == socket.gethostname()
    if held is None or {**holder, "heartbeat": held["heartbeat"]} != held:
        what = "this trainer no longer holds its run folder"
    elif here and _started(holder["pid"]) != holder["started"]:
        what = f"the trainer, process {holder['pid']}, is gone"
    else:
        return
    raise UserError(f"{what}; nothing more is written", where=run_dir, do="running the same command again resumes")


def _read(path: Path) -> dict | None:
    """What a lease says, None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


class Lease:
    """One trainer a run folder: a file with host, process, job and heartbeat; a context manager.

    Raises UserError where another living trainer holds it. A holder whose process on this host is gone, or whose
    heartbeat stands still, is dead: another host's is watched until it beats or LEASE_SECONDS have passed. A trainer
    that finds its lease taken (it was suspended, say) sets `lost` and gets a SIGTERM.
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

    def _beats(self, held: dict) -> bool:
        """Whether another host's trainer is seen to be alive; waits for its next heartbeat."""
        if held["host"] == self.me["host"]:
            return True
        print(f"[train] waiting for a sign of life of process {held['pid']} on {held['host']}", flush=True)
        while self._is_alive(held):
            time.sleep(LEASE_SECONDS / 120)
            now = _read(self.path)
            if now is None:
                return False  # it has just ended
            if now != held:
                return True
        return False

    def _mine(self) -> bool:
        held = _read(self.path)
        return held is not None and {**self.me, "heartbeat": held["heartbeat"]} == held

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            if not self._mine():
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with contextlib.suppress(OSError):  # a full disk: the next beat may find room
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
                held = _read(self.path)
            if held is None:
                continue
            if self._is_alive(held) and self._beats(held):
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
