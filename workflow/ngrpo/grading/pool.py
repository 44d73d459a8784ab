"""Workers that can be killed: pairs go out one at a time, and the parent watches time and memory and kills.

A pair ends in one of four ways: a verdict; its time is over; its memory is over; its worker died (killed from outside,
or crashed), which is tried once more in a new worker. Verdicts depend neither on the number of workers nor on the order
of pairs: hashing is fixed, a pair's verdict is a function of the pair, and the time that counts is processor time, so
that a busy machine makes no errors. WALL_FACTOR times as many seconds on the clock end a pair, too.

Why the limits are enforced from here: Math-Verify swallows what is raised inside a comparison, a MemoryError too, and
says "wrong"; a killed worker can't. RLIMIT_AS, far above the limit, is the second limit (worker.py).
"""

import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ngrpo.errors import UserError

ATTEMPTS = 2
START_SECONDS = 120
WATCH_SECONDS = 0.02
WALL_FACTOR = 4
MB = 2**20


class Pair(NamedTuple):
    """A reference and an answer, and how a worker compares them."""

    gold: str
    answer: str
    way: Literal["math_verify", "math_verify_all_boxes", "second"] = "math_verify"
    tolerance: float = 0.0
    sets_equal_relations: bool = False


@dataclass(frozen=True)
class Verdict:
    """equal: the verdict. error: why there is none. lasting: another try would end the same."""

    equal: bool
    error: str | None = None
    lasting: bool = True


class _LauncherDied(Exception):
    """The launcher was killed from outside; its workers died with it."""


class _Worker:
    """One worker process, its socket, and the pair that it compares; sizes are of its address space, in bytes."""

    def __init__(self, pid: int, jobs: socket.socket):
        self.pid, self.jobs = pid, jobs
        self.pair: Pair | None = None
        self.deadline = float("inf")
        self.size_at_start = self.size_at_pair = self.size()
        self.processor_at_pair = 0.0
        self.received = b""

    def size(self) -> int:
        """The address space now; 0 for a process that is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as f:
                return int(f.read().split()[0]) * resource.getpagesize()
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def processor_seconds(self) -> float:
        """The processor time spent since the start; 0 for a process that is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time

    def send(self, pair: Pair, seconds: float) -> None:
        self.pair, self.deadline = pair, time.monotonic() + WALL_FACTOR * seconds
        self.size_at_pair, self.processor_at_pair = self.size(), self.processor_seconds()
        self.jobs.sendall(json.dumps(pair).encode("ascii") + b"\n")

    def release(self) -> Pair:
        """The pair that it was given, which it no longer has."""
        assert self.pair is not None
        pair, self.pair = self.pair, None
        return pair

    def receive(self) -> list[Any] | None:
        """[equal, reason, out of memory] when the line is whole, None before; raises EOFError when the worker died."""
        try:
            data = self.jobs.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self.received += data
        if not self.received.endswith(b"\n"):
            return None
        reply: list[Any] = json.loads(self.received)
        self.received = b""
        return reply


class WorkerPool:
    """Grades pairs in `workers` processes that start at the first use; each pair has `seconds` and `memory_mb`."""

    def __init__(self, workers: int, seconds: float, memory_mb: int):
        self.workers, self.seconds, self.memory_mb = workers, seconds, memory_mb
        self._launcher: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._active: list[_Worker] = []

    def pids(self) -> list[int]:
        """The running workers' process ids."""
        return [worker.pid for worker in self._active]

    def close(self) -> None:
        """End every process; the pool can be used again and then starts anew."""
        for worker in self._active:
            worker.jobs.close()
        self._active = []
        if self._control is not None:
            self._control.close()  # the launcher kills its workers and ends
        if self._launcher is not None:
            try:
                self._launcher.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._launcher.kill()
                self._launcher.wait()
        self._launcher = self._control = None

    def _start_launcher(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A fixed hash seed fixes sympy's orderings; an own session keeps the terminal's Ctrl-C for the parent.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONNOUSERSITE": "1"}
        with tempfile.TemporaryFile() as stderr, theirs:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "ngrpo.grading.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            theirs.close()
            ours.settimeout(START_SECONDS)
            self._control = ours
            try:
                self._reply()
            except _LauncherDied:
                self.close()
                stderr.seek(0)
                lines = stderr.read().decode(errors="replace").strip().splitlines()
                message = lines[-1] if lines else "no message"
                raise UserError(
                    f"the grading worker did not start: {message}",
                    where=f"{sys.executable} -m ngrpo.grading.worker",
                    do="check that this environment has math-verify (it is in both environments' locks)",
                ) from None

    def _reply(self) -> dict[str, Any]:
        try:
            message = self._open_control().recv(4096)
        except (ConnectionError, TimeoutError):
            message = b""
        if not message:
            raise _LauncherDied
        reply: dict[str, Any] = json.loads(message)
        return reply

    def _open_control(self) -> socket.socket:
        """The launcher's socket. Raises _LauncherDied where there is none."""
        if self._control is None:
            raise _LauncherDied
        return self._control

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        try:
            socket.send_fds(self._open_control(), [json.dumps(request).encode()], list(fds))
        except (ConnectionError, TimeoutError):
            raise _LauncherDied from None
        return self._reply()

    def _start_worker(self) -> _Worker:
        if self._launcher is None:
            self._start_launcher()
        ours, theirs = socket.socketpair()
        with theirs:
            pid = self._ask({"start": {"memory_mb": self.memory_mb}}, [theirs.fileno()])["pid"]
        worker = _Worker(pid, ours)
        self._active.append(worker)
        return worker

    def _stop_worker(self, worker: _Worker) -> str:
        worker.jobs.close()
        self._active.remove(worker)
        return str(self._ask({"stop": worker.pid})["status"])

    def verdicts(self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None) -> dict[Pair, Verdict]:
        """The verdict on each of the distinct pairs; progress is told how many are done."""
        batch = _Batch(self, pairs, progress)
        while batch.unfinished():
            try:
                batch.advance()
            except _LauncherDied:
                batch.requeue_all()
                self.close()
            except BaseException:
                self.close()  # a worker may still compare a pair: never meet its late reply
                raise
        return batch.done


class _Batch:
    """One call's pairs: those waiting, those that a worker compares, those done."""

    def __init__(self, pool: WorkerPool, pairs: Sequence[Pair], progress: Callable[[int], None] | None):
        self.pool, self.progress = pool, progress
        self.waiting = deque(dict.fromkeys(pairs))
        self.total = len(self.waiting)
        self.attempts: dict[Pair, int] = {}
        self.done: dict[Pair, Verdict] = {}

    def unfinished(self) -> bool:
        return len(self.done) < self.total

    def advance(self) -> None:
        """Assign pairs, wait a moment for replies, take what came, and stop what is over a limit."""
        self._assign()
        busy = [worker for worker in self.pool._active if worker.pair is not None]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.jobs, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(WATCH_SECONDS)]
        for worker in ready:
            self._receive(worker)
        for worker in busy:
            if worker.pair is not None and worker not in ready and (excess := self._excess(worker)):
                self._finish(worker.release(), Verdict(False, excess))
                self.pool._stop_worker(worker)

    def _excess(self, worker: _Worker) -> str | None:
        """Which limit the worker's pair is over, if any."""
        if worker.size() - worker.size_at_pair > self.pool.memory_mb * MB:
            return f"over the memory limit of {self.pool.memory_mb} MB"
        spent = worker.processor_seconds() - worker.processor_at_pair
        late = spent >= self.pool.seconds or worker.deadline <= time.monotonic()
        return f"over the time limit of {self.pool.seconds:g} s" if late else None

    def _assign(self) -> None:
        idle = [worker for worker in self.pool._active if worker.pair is None]
        while self.waiting and (idle or len(self.pool._active) < self.pool.workers):
            worker = idle.pop() if idle else self.pool._start_worker()
            if worker.size() - worker.size_at_start > self.pool.memory_mb * MB:  # sympy's caches only grow
                self.pool._stop_worker(worker)
                continue
            pair = self.waiting.popleft()
            self.attempts[pair] = self.attempts.get(pair, 0) + 1
            try:
                worker.send(pair, self.pool.seconds)
            except ConnectionError:
                self._handle_death(worker)

    def _receive(self, worker: _Worker) -> None:
        try:
            reply = worker.receive()
        except EOFError:
            self._handle_death(worker)
            return
        if reply is None:
            return
        equal, reason, out_of_memory = reply
        self._finish(worker.release(), Verdict(equal, reason))
        if out_of_memory:
            self.pool._stop_worker(worker)

    def _handle_death(self, worker: _Worker) -> None:
        pair = worker.release()
        self.waiting.appendleft(pair)  # until its end is known: asking may find the launcher dead, too
        status = self.pool._stop_worker(worker)
        self.waiting.popleft()
        self._retry_or_settle(
            pair, Verdict(False, f"the grading worker died {ATTEMPTS} times ({status})", lasting=False)
        )

    def _retry_or_settle(self, pair: Pair, verdict: Verdict) -> None:
        """Try the pair once more in a new worker, or settle for the verdict."""
        if self.attempts[pair] < ATTEMPTS:
            self.waiting.appendleft(pair)
        else:
            self._finish(pair, verdict)

    def requeue_all(self) -> None:
        """The launcher is gone: what its workers held waits again, unless it has been tried often enough."""
        for worker in self.pool._active:
            if worker.pair is not None:
                self._retry_or_settle(
                    worker.release(), Verdict(False, f"the grading worker died {ATTEMPTS} times", lasting=False)
                )

    def _finish(self, pair: Pair, verdict: Verdict) -> None:
        self.done[pair] = verdict
        if self.progress is not None:
            self.progress(len(self.done))
