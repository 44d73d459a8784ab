"""Batches that start whole: requests wait in the scheduler until all of theirs have come, or too long have passed."""

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT


class Overdue(str):
    """Id of a batch that some requests are waiting for in vain."""


class Inbox:
    """Rank 0's socket, which also delivers overdue batches, so that every rank meets them in the same round."""

    def __init__(self, socket: Any, barrier: "BatchBarrier"):
        self.socket, self.barrier = socket, barrier

    def recv_pyobj(self, *args: Any) -> Any:
        """The next message."""
        late = self.barrier.overdue()
        return self.socket.recv_pyobj(*args) if late is None else Overdue(late)


@dataclass
class HeldBatch:
    """A batch that isn't whole yet: its requests so far, how many are missing, when the last one came."""

    missing: int
    reqs: list[Any] = field(default_factory=list)
    since: float = 0.0


class BatchBarrier:
    """Holds the requests of a batch until all are there, then lets them go in one fixed order.

    A batch that meets an idle engine starts from an empty prefix cache and fresh scheduler statistics: how its
    requests are grouped, and with it every last bit on a CPU, depends on the batch alone.
    """

    def __init__(self, scheduler: Any, timeout: float):
        self.scheduler, self.timeout = scheduler, timeout
        self.held: dict[str, HeldBatch] = {}

    def add(self, req: Any) -> None:
        """Hold a request."""
        name, size = req.ngrpo.batch
        batch = self.held.setdefault(name, HeldBatch(size))
        batch.reqs.append(req)
        batch.missing -= 1
        batch.since = time.monotonic()

    def release(self) -> None:
        """Queue the batches that are whole; called once a scheduling round."""
        s = self.scheduler
        whole = sorted(name for name, batch in self.held.items() if batch.missing <= 0)
        if not whole:
            return
        if not (s.waiting_queue or s.chunked_req or any(not r.finished() for r in s.running_batch.reqs)):
            if s.running_batch.reqs or s.last_batch is not None:
                return  # finished requests still have a step in flight (overlap schedule)
            s.flush_cache()
            s.new_token_ratio = s.init_new_token_ratio
        for name in whole:
            reqs = self.held.pop(name).reqs
            s.waiting_queue.extend(sorted(reqs, key=lambda r: (list(r.origin_input_ids), r.ngrpo.seed)))

    def drop(self, rid: str) -> list[Any]:
        """Let go of held requests whose id starts so; their batches no longer wait for them."""
        dropped = []
        for name, batch in list(self.held.items()):
            dropped += [r for r in batch.reqs if r.rid.startswith(rid)]
            batch.reqs = [r for r in batch.reqs if not r.rid.startswith(rid)]
            if not batch.reqs and batch.missing <= 0:
                del self.held[name]
        return dropped

    def overdue(self) -> str | None:
        """A batch that has waited too long for its next request, reported once."""
        for name, batch in self.held.items():
            if batch.missing > 0 and time.monotonic() - batch.since > self.timeout:
                batch.since = float("inf")
                return name
        return None

    def give_up(self, name: Overdue) -> None:
        """Fail the requests of an overdue batch."""
        if name not in self.held or self.held[name].missing <= 0:
            return
        batch = self.held.pop(name)
        size = len(batch.reqs) + batch.missing
        for req in batch.reqs:
            fail(req, f"only {len(batch.reqs)} of {size} requests of batch {name} came within {self.timeout:g} s")
            self.scheduler.waiting_queue.append(req)


def fail(req: Any, message: str) -> None:
    """End a request with an error that its caller sees."""
    req.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")
