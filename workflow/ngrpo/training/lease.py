"""One trainer a run folder: runs/{run}/lease.json says who trains there: host, process, job, heartbeat."""

import contextlib
import errno
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ngrpo.errors import Unfinished
from ngrpo.files import write_json
from ngrpo.study.layout import RunFiles
from ngrpo.terminal import echo

LEASE_SECONDS = 120.0  # a heartbeat older than this is a dead trainer's
HALF_WRITTEN = 10.0  # seconds that a lease may take to be written


def _started(pid: int) -> str | None:
    """When a process of this host started, in its kernel's ticks; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]


def is_trained(run: RunFiles) -> bool:
    """Whether a trainer is at work in a run's folder: its lease beats and, on this host, its process lives."""
    held = _read(run.lease)
    if held is None or time.time() - held["heartbeat"] > LEASE_SECONDS:
        return False
    return held["host"] != socket.gethostname() or _started(held["pid"]) == held["started"]


def silence(run: RunFiles) -> float | None:
    """Seconds since the last sign of life of a trainer that has left its lease behind; None where none has."""
    held = _read(run.lease)
    return None if held is None or is_trained(run) else max(0.0, time.time() - held["heartbeat"])


def check_lease(run: RunFiles, holder: dict[str, Any]) -> None:
    """Raise Unfinished unless `holder` (a `Lease.holder`) still has this run folder; asked before each write to it.

    Ray's processes can outlive the trainer that started them by seconds: what they'd write then would be another's.
    """
    held = _read(run.lease)
    here = holder["host"] == socket.gethostname()
    if held is None or {**holder, "heartbeat": held["heartbeat"]} != held:
        what = "this trainer no longer holds its run folder"
    elif here and _started(holder["pid"]) != holder["started"]:
        what = f"the trainer, process {holder['pid']}, is gone"
    else:
        return
    raise Unfinished(f"{what}; nothing more is written", where=run.folder, do="running the same command again resumes")


def _read(path: Path) -> dict[str, Any] | None:
    """What a lease says, None where there is none.

    One that is being written for the first time, where there are no hard links, is waited for; a half-written one that
    stays so was a dead trainer's.
    """
    deadline = time.monotonic() + HALF_WRITTEN
    while True:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            if time.monotonic() > deadline:
                return {"host": "?", "pid": 0, "started": None, "job": "none", "heartbeat": 0.0}
            time.sleep(0.1)


def _create(path: Path, claim: Path) -> None:
    """Give a whole file a second name, which only one of several can do. Raises FileExistsError where it is taken.

    Some file systems (exFAT, some FUSE and object stores) know no hard links: there the name is made first, which only
    one can do as well, and the text follows.
    """
    try:
        os.link(claim, path)
    except FileExistsError:
        raise
    except OSError as refused:
        if refused.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL):
            raise
        with open(path, "x", encoding="utf-8") as file:
            file.write(claim.read_text(encoding="utf-8"))
            file.flush()
            os.fsync(file.fileno())


class Lease:
    """One trainer a run folder: a file with host, process, job and heartbeat; a context manager.

    Raises Unfinished where another living trainer holds it. A holder whose process on this host is gone, or whose
    heartbeat stands still, is dead: another host's is watched until it beats or LEASE_SECONDS have passed. A trainer
    that finds its lease taken (it was suspended, say) sets `lost` and gets a SIGTERM.
    """

    def __init__(self, run: RunFiles):
        self.path = run.lease
        self.holder: dict[str, Any] = {
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
        return held["host"] != self.holder["host"] or _started(held["pid"]) == held["started"]

    def _beats(self, held: dict) -> bool:
        """Whether another host's trainer is seen to be alive; waits for its next heartbeat."""
        if held["host"] == self.holder["host"]:
            return True
        echo(f"[train] waiting for a sign of life of process {held['pid']} on {held['host']}")
        while self._is_alive(held):
            time.sleep(LEASE_SECONDS / 120)
            current = _read(self.path)
            if current is None:
                return False  # it has just ended
            if current != held:
                return True
        return False

    def _is_held(self) -> bool:
        """Whether the lease is still this trainer's."""
        held = _read(self.path)
        return held is not None and {**self.holder, "heartbeat": held["heartbeat"]} == held

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_SECONDS / 6):
            if not self._is_held():
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with contextlib.suppress(OSError):  # a full disk: the next beat may find room
                write_json(self.path, {**self.holder, "heartbeat": time.time()})

    def __enter__(self) -> "Lease":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        claim = self.path.with_name(f".lease.{self.holder['host']}.{self.holder['pid']}")
        write_json(claim, {**self.holder, "heartbeat": time.time()})
        try:
            self._take(claim)
        finally:
            claim.unlink(missing_ok=True)
        self._thread.start()
        return self

    def _take(self, claim: Path) -> None:
        """Give the claim the lease's name, which only one of several trainers can do."""
        while True:
            try:
                _create(self.path, claim)
                return
            except FileExistsError:
                held = _read(self.path)
            if held is None:
                continue
            if self._is_alive(held) and self._beats(held):
                raise Unfinished(
                    f"another trainer works in this run folder: process {held['pid']} on {held['host']}, "
                    f"job {held['job']}",
                    where=self.path.parent,
                    do=f"wait for it, or end it; a dead trainer's lease runs out {LEASE_SECONDS:.0f} s after its "
                    "heartbeat",
                )
            self._drop(held)

    def _drop(self, dead: dict) -> None:
        """Remove a dead trainer's lease, unless a living one has replaced it by now."""
        aside = self.path.with_name(f".lease.dead.{self.holder['host']}.{self.holder['pid']}")
        try:
            os.replace(self.path, aside)
        except FileNotFoundError:
            return  # another trainer was faster
        if _read(aside) != dead:
            with contextlib.suppress(FileExistsError):
                _create(self.path, aside)
        aside.unlink()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_held():
            self.path.unlink()
