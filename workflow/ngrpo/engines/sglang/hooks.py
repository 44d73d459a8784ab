"""What sglang's processes need beside the subclasses in `overrides`: settings, whole batches, entry points.

Schedulers are spawned, so the parent replaces their entry point by `run_scheduler` (see `install` in the package),
which puts the subclasses in place before the scheduler is built. Nothing here imports sglang before `cpu` has prepared
it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngrpo.engines.model_folder import check_mixer
from ngrpo.engines.sglang import cpu
from ngrpo.errors import UserError
from ngrpo.method.mixers import Mixer

VERSION = "0.4.6.post5"
KEY = "ngrpo"  # of our part in custom_params, finish reasons and the scheduler's report
REFRESH = ("never", "update")
SPACES = ("embedding", "lm_head")

# (setting, its value when off): features whose code paths bypass the plugin
UNSUPPORTED: tuple[tuple[str, Any], ...] = (
    ("speculative_algorithm", None),
    ("dp_size", 1),
    ("pp_size", 1),
    ("enable_dp_attention", False),
    ("enable_mixed_chunk", False),
    ("enable_hierarchical_cache", False),
    ("enable_torch_compile", False),
    ("enable_nan_detection", False),
    ("disaggregation_mode", "null"),
    ("lora_paths", None),
    ("is_embedding", False),
)


@dataclass(frozen=True)
class PluginSettings:
    """What the scheduler processes need to know: the table's file, its metric and k, when it follows the weights."""

    neighbors: Path | None = None
    metric: str | None = None
    k: int | None = None
    refresh: str = "never"
    space: str = "embedding"  # whose rows a refreshed table is built from
    batch_timeout: float = 300.0  # seconds that requests of one batch wait for each other

    def check(self, mixer: Mixer) -> None:
        """Raise UserError unless the table serves the mixer."""
        check_mixer(mixer, metric=self.metric, k=self.k)


def check_server(server: Any) -> None:
    """Raise UserError where sglang's server arguments ask for something that mixing doesn't support."""
    for name, off in UNSUPPORTED:
        if getattr(server, name) != off:
            raise UserError(
                f"input mixing doesn't work with {name}={getattr(server, name)!r}",
                where=f"sglang: {name}",
                do=f"leave {name} at {off!r}, or run sglang without the plugin",
            )


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
    from http import HTTPStatus

    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    req.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")


class Report:
    """The scheduler's pipe to its parent; lets the message "ready" through once every substitute is in place."""

    def __init__(self, pipe: Any):
        self.pipe = pipe

    def send(self, message: dict) -> None:
        """Check and send. Raises UserError, which ends the scheduler, where sglang runs something of its own."""
        from ngrpo.engines.sglang.overrides import SUBSTITUTES, not_in_place

        if missing := not_in_place():
            raise UserError(
                f"sglang runs without these parts of the plugin: {', '.join(missing)}", where="sglang plugin"
            )
        self.pipe.send({**message, KEY: {"substitutes": len(SUBSTITUTES)}})


def run_scheduler(settings: PluginSettings, *args: Any) -> None:
    """A scheduler process's entry point: sglang's own, with the subclasses in place first."""
    with quiet_import():
        cpu.prepare()
        cpu.patch()
        from sglang.srt.managers.scheduler import run_scheduler_process
        from sglang.srt.model_loader import weight_utils

        from ngrpo.engines.sglang.overrides import substitute

        substitute(settings)
    weight_utils.tqdm = lambda files, **_: files  # no progress bar amid the study's own
    run_scheduler_process(*args[:-1], Report(args[-1]))


def run_detokenizer(*args: Any) -> None:
    """The detokenizer process's entry point: sglang's own, imported without its remarks."""
    with quiet_import():
        cpu.prepare()
        from sglang.srt.managers.detokenizer_manager import run_detokenizer_process
    run_detokenizer_process(*args)


@contextmanager
def quiet_import() -> Iterator[None]:
    """sglang remarks on import that it lacks packages which only some GPUs use."""
    logger = logging.getLogger("sglang")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
