"""Workers that can be killed: pairs go out one at a time, and the parent watches time and memory and kills.

A pair ends in one of four ways: a verdict; its time is over; its memory is over; its worker died (killed from outside,
or crashed), which is tried once more in a new worker. Verdicts depend neither on the number of workers nor on the order
of pairs: hashing is fixed, a pair's verdict is a function of the pair, and the time that counts is processor time, so
that a busy machine makes no errors. WALL times as many seconds on the clock end a pair, too.

Why the limits are enforced from here: Math-Verify swallows what is raised inside a comparison, a MemoryError too, and
says "wrong"; a killed worker can't. RLIMIT_AS, far above the limit, is the net below (worker.py).
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

from ngrpo.errors import UserError

ATTEMPTS = 2
START_SECONDS = 120
WATCH_SECONDS = 0.02
WALL = 4
MB = 2**20

Pair = tuple[str, str]


@dataclass(frozen=True)
class Verdict:
    """equal: Math-Verify's verdict. error: why there is none. lasting: another try would end the same."""

    equal: bool
    error: str | None = None
    lasting: bool = True


class _LauncherDied(Exception):
    """The launcher was killed from outside; its workers died with it."""


class _Worker:
    """One worker process, its socket, and the pair in its hands; sizes are of its address space, in bytes."""

    def __init__(self, pid: int, jobs: socket.socket):
        self.pid, self.jobs = pid, jobs
        self.pair: Pair | None = None
        self.deadline = float("inf")
        self.born_size = self.size_before = self.size()
        self.processor_before = 0.0
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
        self.pair, self.deadline = pair, time.monotonic() + WALL * seconds
        self.size_before, self.processor_before = self.size(), self.processor_seconds()
        self.jobs.sendall(json.dumps(pair).encode("ascii") + b"\n")

    def receive(self) -> list | None:
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
        reply, self.received = json.loads(self.received), b""
        return reply


class WorkerPool:
    """Grades pairs in `workers` processes that start at the first use; each pair has `seconds` and `memory_mb`."""

    def __init__(self, workers: int, seconds: float, memory_mb: int):
        self.workers, self.seconds, self.memory_mb = workers, seconds, memory_mb
        self._launcher: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._crew: list[_Worker] = []

    def pids(self) -> list[int]:
        """The running workers' process ids."""
        return [worker.pid for worker in self._crew]

    def close(self) -> None:
        """End every process; the pool can be used again and then starts anew."""
        for worker in self._crew:
            worker.jobs.close()
        self._crew = []
        if self._launcher is not None:
            self._control.close()  # the launcher kills its workers and ends
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
                said = lines[-1] if lines else "no message"
                raise UserError(
                    f"the grading worker did not start: {said}",
                    where=f"{sys.executable} -m ngrpo.grading.worker",
                    do="check that this environment has math-verify (it is in both environments' locks)",
                ) from None

    def _reply(self) -> dict:
        try:
            message = self._control.recv(4096)
        except (ConnectionError, TimeoutError):
            message = b""
        if not message:
            raise _LauncherDied
        return json.loads(message)

    def _ask(self, request: dict, fds: Sequence[int] = ()) -> dict:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(fds))
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
        self._crew.append(worker)
        return worker

    def _stop_worker(self, worker: _Worker) -> str:
        worker.jobs.close()
        self._crew.remove(worker)
        return self._ask({"stop": worker.pid})["status"]

    def verdicts(self, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None) -> dict[Pair, Verdict]:
        """The verdict on each of the distinct pairs; progress is told how many are done."""
        run = _Run(self, pairs, progress)
        while run.unfinished():
            try:
                run.advance()
            except _LauncherDied:
                run.take_back_all()
                self.close()
            except BaseException:
                self.close()  # a pair may be in a worker's hands: never meet its late reply
                raise
        return run.done


class _Run:
    """One call's pairs: those waiting, those in a worker's hands, those done."""

    def __init__(self, pool: WorkerPool, pairs: Sequence[Pair], progress: Callable[[int], None] | None):
        self.pool, self.progress = pool, progress
        self.waiting = deque(dict.fromkeys(pairs))
        self.total = len(self.waiting)
        self.attempts: dict[Pair, int] = {}
        self.done: dict[Pair, Verdict] = {}

    def unfinished(self) -> bool:
        return len(self.done) < self.total

    def advance(self) -> None:
        """Hand out pairs, wait a moment for replies, take what came, and stop what is over a limit."""
        self._hand_out()
        busy = [worker for worker in self.pool._crew if worker.pair is not None]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.jobs, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(WATCH_SECONDS)]
        for worker in ready:
            self._take(worker)
        for worker in busy:
            if worker.pair is not None and worker not in ready and (excess := self._excess(worker)):
                pair, worker.pair = worker.pair, None
                self._finish(pair, Verdict(False, excess))
                self.pool._stop_worker(worker)

    def _excess(self, worker: _Worker) -> str | None:
        """Which limit the worker's pair is over, if any."""
        if worker.size() - worker.size_before > self.pool.memory_mb * MB:
            return f"over the memory limit of {self.pool.memory_mb} MB"
        spent = worker.processor_seconds() - worker.processor_before
        late = spent >= self.pool.seconds or worker.deadline <= time.monotonic()
        return f"over the time limit of {self.pool.seconds:g} s" if late else None

    def _hand_out(self) -> None:
        idle = [worker for worker in self.pool._crew if worker.pair is None]
        while self.waiting and (idle or len(self.pool._crew) < self.pool.workers):
            worker = idle.pop() if idle else self.pool._start_worker()
            if worker.size() - worker.born_size > self.pool.memory_mb * MB:  # sympy's caches only grow
                self.pool._stop_worker(worker)
                continue
            pair = self.waiting.popleft()
            self.attempts[pair] = self.attempts.get(pair, 0) + 1
            try:
                worker.send(pair, self.pool.seconds)
            except ConnectionError:
                self._died(worker)

    def _take(self, worker: _Worker) -> None:
        try:
            reply = worker.receive()
        except EOFError:
            self._died(worker)
            return
        if reply is None:
            return
        equal, reason, out_of_memory = reply
        pair, worker.pair = worker.pair, None
        self._finish(pair, Verdict(equal, reason))
        if out_of_memory:
            self.pool._stop_worker(worker)

    def _died(self, worker: _Worker) -> None:
        pair, worker.pair = worker.pair, None
        self.waiting.appendleft(pair)  # until its end is known: asking may find the launcher dead, too
        status = self.pool._stop_worker(worker)
        self.waiting.popleft()
        self._again(pair, Verdict(False, f"the grading worker died {ATTEMPTS} times ({status})", lasting=False))

    def _again(self, pair: Pair, verdict: Verdict) -> None:
        """Try the pair once more in a new worker, or settle for the verdict."""
        if self.attempts[pair] < ATTEMPTS:
            self.waiting.appendleft(pair)
        else:
            self._finish(pair, verdict)

    def take_back_all(self) -> None:
        """The launcher is gone: what its workers held waits again, unless it has been tried often enough."""
        for worker in self.pool._crew:
            if worker.pair is not None:
                pair, worker.pair = worker.pair, None
                self._again(pair, Verdict(False, f"the grading worker died {ATTEMPTS} times", lasting=False))

    def _finish(self, pair: Pair, verdict: Verdict) -> None:
        self.done[pair] = verdict
        if self.progress is not None:
            self.progress(len(self.done))
