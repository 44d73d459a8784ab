"""What sglang's scheduler processes run in place of sglang's own classes: subclasses, put where sglang looks them up.

| subclass of | where sglang looks it up | what for |
|---|---|---|
| Scheduler | managers.scheduler | requests' state, whole batches, records |
| Req | managers.scheduler | takes nothing shared beyond its prompt |
| ScheduleBatch, ForwardBatch | managers.scheduler, managers.tp_worker | the plan travels with the batch |
| RadixCache | managers.scheduler | shares prompts and nothing that was mixed |
| ModelRunner | managers.tp_worker | draws and mixes |

Every override calls the stock method. `substitute` puts them in place and `hooks.Report` checks, before the engine says
that it is ready, that sglang built its scheduler from them. sglang must be importable when this module is imported.
"""

import base64
from typing import Any

import torch
from sglang.srt.managers import scheduler, tp_worker
from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.mem_cache.radix_cache import RadixCache
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.model_executor.model_runner import ModelRunner
from typing_extensions import override

from ngrpo.engines.sglang.barrier import BatchBarrier, Inbox, Overdue, fail
from ngrpo.engines.sglang.plan import BatchPlan, RequestState
from ngrpo.engines.sglang.state import KEY, VERSION, MixState, PluginSettings
from ngrpo.errors import UserError
from ngrpo.method.mixers import mixer_from
from ngrpo.method.neighbor_table import Table


class MixingRequest(Req):
    """sglang's request; `ngrpo` is its state where it is one of ours."""

    ngrpo: RequestState | None = None

    @override
    def adjust_max_prefix_ids(self) -> list[int]:
        """Looks for no shared prefix beyond the prompt: what a response fed isn't determined by its tokens.

        Safe: a shorter prefix only means a longer prefill. Not in place, a retracted request would go on from keys and
        values of plain tokens, and replay parity would fail.
        """
        ids = super().adjust_max_prefix_ids()
        return ids if self.ngrpo is None else ids[: len(self.origin_input_ids)]


class MixingBatch(ScheduleBatch):
    """sglang's batch of requests, with its plan from when it is handed to the model runner."""

    ngrpo: BatchPlan | None = None

    @override
    def get_model_worker_batch(self) -> Any:
        """Attaches the batch's plan; ends requests whose mixtures a prefill would need and nothing holds.

        Safe: the stock result is unchanged but for one more attribute. Not in place, `MixState.sample` finds no plan.
        """
        worker_batch = super().get_model_worker_batch()
        self.ngrpo = worker_batch.ngrpo = BatchPlan(self)
        for req in self.ngrpo.lost:
            fail(req, "memory ran out, and a soft-thinking response can't be resumed: raise max_total_tokens")
        return worker_batch


class MixingForwardBatch(ForwardBatch):
    """sglang's batch of tensors, with the plan; while a CUDA graph is captured there is none."""

    @override
    @classmethod
    def init_new(cls, batch: Any, model_runner: Any) -> "MixingForwardBatch":
        """Hands the plan on. Safe: one more attribute. Not in place, `MixState.sample` finds no plan."""
        forward_batch = super().init_new(batch, model_runner)
        forward_batch.ngrpo = batch.ngrpo
        return forward_batch


class MixingCache(RadixCache):
    """sglang's prefix cache, to which a request of ours leaves its prompt alone."""

    scheduler: Scheduler  # set by MixingScheduler

    @override
    def cache_unfinished_req(self, req: Req) -> None:
        """Shares the prompt only, which is never mixed.

        Safe: stock sees a request that has computed no more than its prompt; the rest stays the request's own, and a
        response that is prefilled in chunks goes on after all that it has computed. Not in place, a follow-up would
        share mixed keys and values: a contract test counts its cached tokens and its log-probs are off.
        """
        computed = req.fill_ids
        if self.disable or getattr(req, KEY, None) is None or len(computed) <= len(req.origin_input_ids):
            return super().cache_unfinished_req(req)
        req.fill_ids = computed[: len(req.origin_input_ids)]
        super().cache_unfinished_req(req)
        req.fill_ids = computed
        if req is self.scheduler.chunked_req:
            own = self.req_to_token_pool.req_to_token[req.req_pool_idx, : len(computed)]
            req.prefix_indices = own.to(req.prefix_indices.dtype)

    @override
    def cache_finished_req(self, req: Req) -> None:
        """Shares the prompt only, and frees the response's slots.

        Safe: stock then sees a request whose only token was never computed. Not in place: as above; freeing too little
        or too much ends in sglang's own check of its pool, which every idle round makes.
        """
        prompt, output = req.origin_input_ids, req.output_ids
        if self.disable or getattr(req, KEY, None) is None or len(output) <= 1:
            return super().cache_finished_req(req)
        shared = len(prompt) - len(prompt) % self.page_size
        own = self.req_to_token_pool.req_to_token[req.req_pool_idx, shared : len(prompt) + len(output) - 1]
        self.token_to_kv_pool_allocator.free(own.clone())
        req.origin_input_ids, req.output_ids = prompt[:shared], output[:1]
        super().cache_finished_req(req)
        req.origin_input_ids, req.output_ids = prompt, output


class MixingRunner(ModelRunner):
    """sglang's model runner, which samples through a `MixState`."""

    settings: PluginSettings  # set by `substitute`
    mixing: MixState

    @override
    def init_memory_pool(self, *args: Any, **kwargs: Any) -> None:
        """Makes the slot table, before CUDA graphs are captured.

        Safe: after the stock pools, outside of the memory that they may release. Not in place, `hooks.Report` says so.
        """
        super().init_memory_pool(*args, **kwargs)
        table = Table.load(self.settings.neighbors) if self.settings.neighbors else None
        self.mixing = MixState(self, table, self.settings)

    @override
    def sample(self, logits_output: Any, forward_batch: Any) -> torch.Tensor:
        """Draws and mixes for our requests. Safe: a batch without any is the stock sampler's. Not in place, outputs
        have no steps, and records that don't replay."""
        return self.mixing.sample(super().sample, logits_output, forward_batch)

    @override
    def update_weights_from_disk(self, *args: Any, **kwargs: Any) -> Any:
        """Notes that the weights are others (a following neighbor table, the RMS). Safe: after the stock update, with
        its result. Not in place, a contract test finds the old table after an update."""
        return self._noting(super().update_weights_from_disk(*args, **kwargs))

    @override
    def update_weights_from_tensor(self, *args: Any, **kwargs: Any) -> Any:
        """As `update_weights_from_disk`."""
        return self._noting(super().update_weights_from_tensor(*args, **kwargs))

    @override
    def update_weights_from_distributed(self, *args: Any, **kwargs: Any) -> Any:
        """As `update_weights_from_disk`."""
        return self._noting(super().update_weights_from_distributed(*args, **kwargs))

    def _noting(self, result: Any) -> Any:
        self.mixing.weights_changed()
        return result


class MixingScheduler(Scheduler):
    """sglang's scheduler, which knows our requests and holds back batches that must start whole."""

    settings: PluginSettings  # set by `substitute`
    running: "MixingScheduler | None" = None  # this process's
    arriving: BatchPlan | None = None  # of the batch whose results are being processed

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.barrier = BatchBarrier(self, self.settings.batch_timeout)
        self._request_dispatcher._mapping.append((Overdue, self.barrier.give_up))
        if self.recv_from_tokenizer is not None:
            self.recv_from_tokenizer = Inbox(self.recv_from_tokenizer, self.barrier)
        self.tree_cache.scheduler = self
        MixingScheduler.running = self

    @property
    def runner(self) -> Any:
        """Its model runner; with the overlap schedule there is a worker between."""
        return getattr(self.tp_worker, "worker", self.tp_worker).model_runner

    @override
    def _add_request_to_queue(self, req: Req) -> None:
        """Gives a request of ours its state, refuses what can't be served, and holds it if its batch must be whole.

        Safe: others pass untouched. Not in place, outputs have no record, which `record_of` refuses.
        """
        params = (req.sampling_params.custom_params or {}).get(KEY)
        if params is None or req.finished():
            return super()._add_request_to_queue(req)
        try:
            mixer = mixer_from(params["mixer"])
            self.settings.check(mixer)
            _check_supported(req)
        except UserError as error:
            fail(req, str(error))
            return super()._add_request_to_queue(req)
        settings = self.runner.mixing.settings_of(mixer, req.sampling_params.temperature)
        req.ngrpo = RequestState(params["seed"], mixer, params["batch"], settings)
        if req.ngrpo.batch is not None:
            return self.barrier.add(req)
        return super()._add_request_to_queue(req)

    @override
    def get_next_batch_to_run(self) -> ScheduleBatch | None:
        """Queues batches that have become whole, first. Safe: only fills the waiting queue. Not in place, such a batch
        waits for ever."""
        self.barrier.release()
        return super().get_next_batch_to_run()

    @override
    def abort_request(self, recv_req: Any) -> None:
        """Also aborts requests that are held back. Safe: they are nowhere else yet. Not in place, a contract test of
        aborted requests hangs."""
        for req in self.barrier.drop(recv_req.rid):
            self.send_to_tokenizer.send_pyobj(type(recv_req)(req.rid))
        super().abort_request(recv_req)

    @override
    def run_batch(self, batch: ScheduleBatch) -> Any:
        """Puts the plan beside the result, which stock may process after the batch has changed. Safe: one more
        attribute. Not in place, records are empty and don't replay."""
        result = super().run_batch(batch)
        result.ngrpo = batch.ngrpo
        return result

    @override
    def process_batch_result(self, batch: ScheduleBatch, result: Any, *args: Any) -> None:
        """Takes the batch's steps into its requests' states. Safe: after stock, from its own tensors. Not in place,
        records are empty and don't replay."""
        plan: BatchPlan | None = getattr(result, KEY, None)
        if plan:
            plan.arrive()
        self.arriving = plan
        super().process_batch_result(batch, result, *args)
        self.arriving = None
        if plan:
            plan.absorb()

    @override
    def stream_output_generation(self, reqs: list[Req], *args: Any) -> None:
        """Sends the record with the finish reason, a dictionary that detokenizer and tokenizer manager pass on.

        Also leaves out requests that were retracted before their first token was seen: they have nothing to send, and
        stock would break off there. Safe: other fields are stock's. Not in place, `record_of` refuses the output.
        """
        if self.arriving:  # what was read of a response's last input comes with its last token
            self.arriving.absorb()
        reqs = [req for req in reqs if req.output_ids or req.finished()]
        for req in reqs:
            state: RequestState | None = getattr(req, KEY, None)
            if state is not None and req.output_token_logprobs_val:
                state.correct(req.output_token_logprobs_val, len(req.output_ids) - req.finished())
            if state is not None and req.finished() and not req.finished_output:
                record = state.record(req.output_ids, len(req.origin_input_ids), self.runner.mixing.weights)
                packed = base64.b64encode(record.pack()).decode()  # a server's answers are JSON
                reason = {**req.finished_reason.to_json(), KEY: packed}
                req.finished_reason.to_json = reason.copy
        super().stream_output_generation(reqs, *args)


def _check_supported(req: Req) -> None:
    """Raise UserError where a request of ours asks for what the plugin's own sampling doesn't do."""
    params, own = req.sampling_params, (req.token_ids_logprob, req.custom_logit_processor)
    names = ("min_p", "top_logprobs_num", "token_ids_logprob", "custom_logit_processor")
    for name, wanted in zip(names, (params.min_p, req.top_logprobs_num, *own), strict=True):
        if wanted:
            raise UserError(f"{name} isn't supported for seeded requests", where=f"request: {name}", do="leave it out")


# where sglang looks a class up, under which name, and what it finds there
SUBSTITUTES: tuple[tuple[Any, str, type], ...] = (
    (scheduler, "Scheduler", MixingScheduler),
    (scheduler, "Req", MixingRequest),
    (scheduler, "ScheduleBatch", MixingBatch),
    (scheduler, "RadixCache", MixingCache),
    (tp_worker, "ForwardBatch", MixingForwardBatch),
    (tp_worker, "ModelRunner", MixingRunner),
)


def substitute(settings: PluginSettings) -> None:
    """Put the subclasses in place, in this process. Raises UserError where a method that one overrides isn't there."""
    for module, name, ours in SUBSTITUTES:
        check_overrides(ours)
        setattr(module, name, ours)
    MixingScheduler.settings = MixingRunner.settings = settings


def check_overrides(ours: type) -> None:
    """Raise UserError where this class overrides a method that its bases don't have."""
    for name, value in vars(ours).items():
        if getattr(getattr(value, "__func__", value), "__override__", False) and not hasattr(super(ours, ours), name):
            raise UserError(
                f"sglang's {ours.__mro__[1].__name__} has no {name}",
                where="sglang plugin",
                do=f"install sglang {VERSION}",
            )


def not_in_place() -> list[str]:
    """What sglang didn't take of this process's substitutes: named, empty where all is well."""
    missing = [f"{module.__name__}.{name}" for module, name, ours in SUBSTITUTES if getattr(module, name) is not ours]
    running = MixingScheduler.running
    if running is None:
        return [*missing, "scheduler"]
    runner = running.runner
    parts = (
        ("running batch", running.running_batch, MixingBatch),
        ("prefix cache", running.tree_cache, MixingCache if isinstance(running.tree_cache, RadixCache) else object),
        ("model runner", runner, MixingRunner),
    )
    missing += [f"{name} (a stock {type(part).__name__})" for name, part, ours in parts if not isinstance(part, ours)]
    if isinstance(runner, MixingRunner) and not runner.mixing.hooked():
        missing.append("model forward and embedding lookup")
    return missing
