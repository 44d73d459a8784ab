"""Hooks in sglang's scheduler processes: plans, replay after retraction, prefix cache, batches, records.

Schedulers are spawned, so the parent replaces their entry point by `run_scheduler` (see `install` in the package),
which patches the classes below before the scheduler is built. What is patched, and why:

| class | method | what for |
|---|---|---|
| ModelRunner | init_memory_pool | slot tables exist before CUDA graphs are captured |
| ModelRunner | sample | draw and mix |
| ModelRunner | update_weights_from_{disk, tensor, distributed} | a following neighbor table is stale |
| ScheduleBatch, ForwardBatch | get_model_worker_batch, init_new | the plan travels with the batch |
| Scheduler | __init__, _add_request_to_queue, get_next_batch_to_run, abort_request | tickets, whole batches |
| Scheduler | run_batch, process_batch_result, stream_output_generation | histories, records |
| RadixCache | cache_finished_req, cache_unfinished_req | share nothing from the first mixed position on |
| Req | adjust_max_prefix_ids | take nothing shared from there on |

The record leaves with the finish reason, a dictionary that the detokenizer and the tokenizer manager pass on.
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngrpo.engines.model_folder import check_mixer, is_dense
from ngrpo.engines.sglang import cpu
from ngrpo.errors import UserError
from ngrpo.method.mixers import Mixer, mixer_from
from ngrpo.method.neighbors import Table

VERSION = "0.4.6.post5"
KEY = "ngrpo"  # of our part in custom_params, finish reasons and the scheduler's report
REFRESH = ("never", "update")
SPACES = ("embedding", "lm_head")

# (setting, its value when off): features whose code paths bypass the hooks
UNSUPPORTED: tuple[tuple[str, Any], ...] = (
    ("speculative_algorithm", None),
    ("dp_size", 1),
    ("pp_size", 1),
    ("enable_dp_attention", False),
    ("enable_mixed_chunk", False),
    ("enable_hierarchical_cache", False),
    ("enable_torch_compile", False),
    ("disaggregation_mode", "null"),
    ("lora_paths", None),
    ("is_embedding", False),
)


@dataclass(frozen=True)
class Settings:
    """What the scheduler processes are told: the table's file, its metric and k, its refresh, and more."""

    neighbors: Path | None = None
    metric: str | None = None
    k: int | None = None
    refresh: str = "never"
    space: str = "embedding"  # whose rows a refreshed table is built from
    batch_timeout: float = 300.0  # seconds that requests of one batch wait for each other
    width: int = 1  # the most candidates of a step
    noise: bool = False  # room for Gaussian noise
    dense: bool = False  # room for mixtures of the whole vocabulary

    def check(self, mixer: Mixer) -> None:
        """Raise UserError unless these settings serve the mixer."""
        check_mixer(mixer, metric=self.metric, k=self.k)
        for name, needed in (("noise", mixer.kind == "gaussian"), ("dense", is_dense(mixer))):
            if needed and not getattr(self, name):
                raise UserError(
                    f"the engine has no room for {mixer.kind}",
                    where=f"mixer {mixer.kind}",
                    do=f"start it with {name}=True",
                )
        if mixer.width > self.width:
            raise UserError(
                f"the mixer has {mixer.width} candidates, the engine has room for {self.width}",
                where=f"mixer {mixer.kind}",
                do=f"start the engine with width={mixer.width}",
            )


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

    def __init__(self, socket: Any, barrier: "Barrier"):
        self.socket, self.barrier = socket, barrier

    def recv_pyobj(self, *args: Any) -> Any:
        """The next message."""
        late = self.barrier.overdue()
        return self.socket.recv_pyobj(*args) if late is None else Overdue(late)


class Barrier:
    """Holds the requests of a batch until all are there, then lets them go in one fixed order.

    A batch that meets an idle engine starts from an empty prefix cache and fresh scheduler statistics: how its
    requests are grouped, and with it every last bit on a CPU, depends on the batch alone.
    """

    def __init__(self, scheduler: Any, timeout: float):
        self.scheduler, self.timeout = scheduler, timeout
        self.held: dict[str, list[Any]] = {}
        self.missing: dict[str, int] = {}
        self.since: dict[str, float] = {}

    def add(self, req: Any) -> None:
        """Hold a request."""
        batch, size = req.ngrpo.batch
        self.held.setdefault(batch, []).append(req)
        self.missing[batch] = self.missing.get(batch, size) - 1
        self.since[batch] = time.monotonic()

    def release(self) -> None:
        """Queue the batches that are whole; called once a scheduling round."""
        if not self.held:
            return
        s = self.scheduler
        whole = [batch for batch, missing in self.missing.items() if missing <= 0]
        if not whole or (self._settling() and not self._busy()):
            return
        if not self._busy():
            s.flush_cache()
            s.new_token_ratio = s.init_new_token_ratio
        for batch in sorted(whole):
            reqs = sorted(self._forget(batch), key=lambda r: (list(r.origin_input_ids), r.ngrpo.seed))
            s.waiting_queue.extend(reqs)

    def _busy(self) -> bool:
        """Whether other requests are under way."""
        s = self.scheduler
        return bool(s.waiting_queue or s.chunked_req or any(not r.finished() for r in s.running_batch.reqs))

    def _settling(self) -> bool:
        """Whether finished requests still have a step in flight (overlap schedule)."""
        return bool(self.scheduler.running_batch.reqs) or self.scheduler.last_batch is not None

    def _forget(self, batch: str) -> list[Any]:
        del self.missing[batch], self.since[batch]
        return self.held.pop(batch)

    def drop(self, rid: str) -> list[Any]:
        """Let go of held requests whose id starts so; their batches no longer wait for them."""
        dropped = []
        for batch, reqs in list(self.held.items()):
            gone = [r for r in reqs if r.rid.startswith(rid)]
            dropped += gone
            self.held[batch] = [r for r in reqs if r not in gone]
            if gone and not self.held[batch] and self.missing[batch] <= 0:
                self._forget(batch)
        return dropped

    def overdue(self) -> str | None:
        """A batch that has waited too long for its next request, told once."""
        for batch, since in self.since.items():
            if self.missing[batch] > 0 and time.monotonic() - since > self.timeout:
                self.since[batch] = float("inf")
                return batch
        return None

    def give_up(self, batch: Overdue) -> None:
        """Fail the requests of an overdue batch."""
        if self.missing.get(batch, 0) <= 0:
            return
        have, missing = len(self.held[batch]), self.missing[batch]
        for req in self._forget(batch):
            fail(req, f"only {have} of {have + missing} requests of batch {batch} came within {self.timeout:g} s")
            self.scheduler.waiting_queue.append(req)


def fail(req: Any, message: str) -> None:
    """End a request with an error that its caller sees."""
    from http import HTTPStatus

    from sglang.srt.managers.schedule_batch import FINISH_ABORT

    req.finished_reason = FINISH_ABORT(message, HTTPStatus.BAD_REQUEST, "BadRequestError")


def first_mixed(req: Any) -> int | None:
    """The first position, prompt and response together, whose key and value depend on more than token ids."""
    ticket = getattr(req, KEY, None)
    return len(req.origin_input_ids) + ticket.index[0] if ticket is not None and ticket.index else None


def _around(owner: type, name: str, hook: Callable) -> None:
    """Replace owner.name by a function that calls hook(stock, *arguments)."""
    raw = next((base.__dict__[name] for base in owner.__mro__ if name in base.__dict__), None)
    if raw is None:
        raise UserError(
            f"sglang's {owner.__name__} has no {name}", where="sglang plugin", do=f"install sglang {VERSION}"
        )
    stock = raw.__func__ if isinstance(raw, classmethod) else raw

    @functools.wraps(stock)
    def around(*args: Any, **kwargs: Any) -> Any:
        return hook(stock, *args, **kwargs)

    around.ngrpo = True
    setattr(owner, name, classmethod(around) if isinstance(raw, classmethod) else around)


def patch(settings: Settings) -> tuple[list[tuple[type, str]], list[Any]]:
    """Patch this process's sglang classes; returns what was patched, and the list that model runners will join."""
    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.mem_cache.radix_cache import RadixCache
    from sglang.srt.model_executor.forward_batch_info import ForwardBatch
    from sglang.srt.model_executor.model_runner import ModelRunner

    from ngrpo.engines.sglang.state import MixState, Plan, Ticket

    runners: list[Any] = []

    def init_memory_pool(stock, runner, *args, **kwargs):
        stock(runner, *args, **kwargs)
        table = Table.load(settings.neighbors) if settings.neighbors else None
        runner.ngrpo = MixState(runner, table, settings)
        runners.append(runner)

    def sample(stock, runner, out, batch):
        return runner.ngrpo.sample(functools.partial(stock, runner), out, batch)

    def update_weights(stock, runner, *args, **kwargs):
        result = stock(runner, *args, **kwargs)
        runner.ngrpo.weights_changed()
        return result

    def get_model_worker_batch(stock, batch):
        worker_batch = stock(batch)
        batch.ngrpo = worker_batch.ngrpo = Plan(batch, settings.width)
        if batch.ngrpo.lost:
            for req in batch.reqs:
                ticket = getattr(req, KEY, None)
                if ticket is not None and ticket.dense and ticket.index:
                    fail(req, "memory ran out, and a soft-thinking response can't be resumed: raise max_total_tokens")
        return worker_batch

    def init_new(stock, cls, batch, runner):
        forward_batch = stock(cls, batch, runner)
        forward_batch.ngrpo = batch.ngrpo
        return forward_batch

    def init(stock, scheduler, *args, **kwargs):
        stock(scheduler, *args, **kwargs)
        scheduler.ngrpo = Barrier(scheduler, settings.batch_timeout)
        scheduler._request_dispatcher._mapping.append((Overdue, scheduler.ngrpo.give_up))
        if scheduler.recv_from_tokenizer is not None:
            scheduler.recv_from_tokenizer = Inbox(scheduler.recv_from_tokenizer, scheduler.ngrpo)

    def add_request(stock, scheduler, req):
        ours = (req.sampling_params.custom_params or {}).get(KEY)
        if ours is None or req.finished():
            return stock(scheduler, req)
        try:
            mixer = mixer_from(ours["mixer"])
            settings.check(mixer)
            if req.sampling_params.min_p > 0:
                raise UserError("min_p isn't supported for seeded requests", where="sampling: min_p", do="leave it out")
        except UserError as error:
            fail(req, str(error))
            return stock(scheduler, req)
        req.ngrpo = Ticket(ours["seed"], mixer, ours["batch"])
        return stock(scheduler, req) if req.ngrpo.batch is None else scheduler.ngrpo.add(req)

    def get_next_batch(stock, scheduler):
        scheduler.ngrpo.release()
        scheduler.tree_cache.between_chunks = True  # what is cached while scheduling is a prompt cut in chunks
        batch = stock(scheduler)
        scheduler.tree_cache.between_chunks = False
        return batch

    def abort_request(stock, scheduler, abort):
        for req in scheduler.ngrpo.drop(abort.rid):
            scheduler.send_to_tokenizer.send_pyobj(type(abort)(req.rid))
        return stock(scheduler, abort)

    def run_batch(stock, scheduler, batch):
        result = stock(scheduler, batch)
        result.ngrpo = batch.ngrpo
        return result

    def process_batch_result(stock, scheduler, batch, result, *args):
        plan = getattr(result, KEY, None)
        before = [len(req.output_ids) for req in plan.reqs] if plan else []
        stock(scheduler, batch, result, *args)
        if plan:
            plan.absorb(before)

    def stream_output(stock, scheduler, reqs, *args):
        # retracted before its first token was seen, a request has nothing to tell, and stock would choke on that
        reqs = [req for req in reqs if req.output_ids or req.finished()]
        for req in reqs:
            ticket = getattr(req, KEY, None)
            if ticket is not None and req.finished() and not req.finished_output:
                record = ticket.record(req.output_ids, len(req.origin_input_ids))
                told = {**req.finished_reason.to_json(), KEY: record.pack()}
                req.finished_reason.to_json = lambda told=told: told
        return stock(scheduler, reqs, *args)

    def cache_finished(stock, cache, req):
        shared, whole = first_mixed(req), len(req.origin_input_ids) + len(req.output_ids) - 1
        if cache.disable or shared is None or shared >= whole:
            return stock(cache, req)
        shared -= shared % cache.page_size
        kept = req.origin_input_ids, req.output_ids
        slots = cache.req_to_token_pool.req_to_token[req.req_pool_idx, shared:whole]
        cache.token_to_kv_pool_allocator.free(slots.clone())
        req.prefix_indices = req.prefix_indices[:shared]
        # stock caches all but the last token of prompt and response
        req.origin_input_ids, req.output_ids = (kept[0] + kept[1])[:shared], [0]
        try:
            return stock(cache, req)
        finally:
            req.origin_input_ids, req.output_ids = kept

    def cache_unfinished(stock, cache, req):
        shared, fill = first_mixed(req), req.fill_ids
        if cache.disable or shared is None or shared >= len(fill):
            return stock(cache, req)
        shared -= shared % cache.page_size
        req.prefix_indices = req.prefix_indices[:shared]
        req.fill_ids = fill[:shared]
        try:
            stock(cache, req)
        finally:
            req.fill_ids = fill
        if cache.between_chunks:  # the next chunk continues after everything computed so far, shared or not
            own = cache.req_to_token_pool.req_to_token[req.req_pool_idx, shared : len(fill)]
            req.prefix_indices = torch.cat([req.prefix_indices, own.to(req.prefix_indices.dtype)])

    def max_prefix(stock, req):
        ids, shared = stock(req), first_mixed(req)
        return ids if shared is None else ids[:shared]

    import torch

    hooks = (
        (ModelRunner, "init_memory_pool", init_memory_pool),
        (ModelRunner, "sample", sample),
        (ModelRunner, "update_weights_from_disk", update_weights),
        (ModelRunner, "update_weights_from_tensor", update_weights),
        (ModelRunner, "update_weights_from_distributed", update_weights),
        (ScheduleBatch, "get_model_worker_batch", get_model_worker_batch),
        (ForwardBatch, "init_new", init_new),
        (Scheduler, "__init__", init),
        (Scheduler, "_add_request_to_queue", add_request),
        (Scheduler, "get_next_batch_to_run", get_next_batch),
        (Scheduler, "abort_request", abort_request),
        (Scheduler, "run_batch", run_batch),
        (Scheduler, "process_batch_result", process_batch_result),
        (Scheduler, "stream_output_generation", stream_output),
        (RadixCache, "cache_finished_req", cache_finished),
        (RadixCache, "cache_unfinished_req", cache_unfinished),
        (Req, "adjust_max_prefix_ids", max_prefix),
    )
    for owner, name, hook in hooks:
        _around(owner, name, hook)
    return [(owner, name) for owner, name, _ in hooks], runners


class Report:
    """The scheduler's pipe to its parent; adds to the message "ready" what the plugin found, once every hook took."""

    def __init__(self, pipe: Any, hooks: list[tuple[type, str]], runners: list[Any]):
        self.pipe, self.hooks, self.runners = pipe, hooks, runners

    def send(self, message: dict) -> None:
        """Check and send."""
        missing = [f"{o.__name__}.{n}" for o, n in self.hooks if not getattr(getattr(o, n), KEY, False)]
        missing += ["model forward and embedding lookup" for r in self.runners if not r.ngrpo.hooked()]
        if missing or not self.runners:
            raise UserError(
                f"these hooks didn't take: {', '.join(missing) or 'no model runner'}", where="sglang plugin"
            )
        self.pipe.send({**message, KEY: {"hooks": len(self.hooks)}})


def run_scheduler(settings: Settings, *args: Any) -> None:
    """A scheduler process's entry point: sglang's own, with the classes patched first."""
    with quiet_import():
        cpu.prepare()
        cpu.patch()
        from sglang.srt.managers.scheduler import run_scheduler_process
        from sglang.srt.model_loader import weight_utils

        hooks, runners = patch(settings)
    weight_utils.tqdm = lambda files, **_: files  # no progress bar amid the study's own
    run_scheduler_process(*args[:-1], Report(args[-1], hooks, runners))


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
