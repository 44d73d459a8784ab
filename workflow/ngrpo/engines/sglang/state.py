"""Mixing on the model runner: what is sampled, and what each running request feeds next (Eq. 6–11).

A running request owns a slot (`req_pool_idx`). Sampling step t writes the vector that the slot feeds next into one
table, `fed` (slots, d), and whether it does into `on`; the embedding lookup of step t+1 reads them: on the same stream,
at fixed addresses, so that the overlap schedule and a captured CUDA graph need nothing more, whatever the mixer. The
lookup leaves a sketch of what it gives the model in `read`; sampling takes it along, into the records.

Departures, and why:
1. Tokens of our requests are drawn by `ngrpo.method.sampling` from their own seeds instead of the stock sampler's
   shared generator: a sample then depends on its request alone. Stock requests go through the stock sampler.
2. Log-probs of our requests are of the whole distribution (stock 0.4.6 renormalizes them to top-p).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ngrpo.engines.model_folder import check_mixer, columns
from ngrpo.engines.sglang.plan import BatchPlan
from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.fingerprint import fingerprint
from ngrpo.method.mixers import Mixer, Step, add_noise, blend, feed, measured, weighted_sum
from ngrpo.method.neighbor_table import Table, nearest
from ngrpo.method.records import settings_digest
from ngrpo.method.sampling import draw, log_prob, restrict, scale
from ngrpo.method.sketches import SIZE, signs

VERSION = "0.4.6.post5"  # of sglang
KEY = "ngrpo"  # of our part in custom_params, finish reasons and the scheduler's report


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


class MixState:
    """The table of one model runner, and the two places where it is used: sampling and the embedding lookup."""

    def __init__(self, runner: Any, table: Table | None, settings: PluginSettings):
        """settings: what `install` was given."""
        self.runner, self.source, self.settings = runner, table, settings
        self.embedding = _embedding_of(runner.model)
        device, slots = runner.device, runner.req_to_token_pool.size + 8
        if table is not None:
            table.check(runner.model_config.vocab_size, table.k, table.metric)
        self.neighbors = table.ids.to(device, torch.int64) if table else None  # as lookups take it
        self.stale = False
        E = self.embedding.weight
        self.on = torch.zeros(slots, dtype=torch.bool, device=device)
        self.fed = torch.zeros(slots, E.shape[1], dtype=E.dtype, device=device)
        self.seed = torch.zeros(slots, dtype=torch.int64, device=device)
        self.state = torch.zeros(slots, dtype=torch.int32, device=device)  # what each mixer wants back
        self.signs = signs(E.shape[1], E.dtype, device)
        self.read = torch.zeros(slots, SIZE, dtype=E.dtype, device=device)  # sketches of a decoding step's inputs
        self.rms: Tensor | None = None  # (V,), of the rows of E; computed when a mixer first needs it
        self.weights: Tensor | None = None  # fingerprint of the weights, on the CPU; computed when they are first used
        self.batch: Any = None  # of the forward pass that is running
        self._lookup, self._forward = self.embedding.forward, runner.model.forward
        self.embedding.forward, runner.model.forward = self._embed, self._run

    def hooked(self) -> bool:
        """Whether the model runs through this state."""
        model = self.runner.model
        return model.forward == self._run and _embedding_of(model).forward == self._embed

    def _run(self, input_ids: Tensor, positions: Tensor, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's forward, during which the embedding lookup knows its batch.

        Safe: it calls the stock forward with the same arguments. Not in place, `hooked` would say so at the start.
        """
        self.batch = forward_batch
        try:
            return self._forward(input_ids, positions, forward_batch, *args, **kwargs)
        finally:
            self.batch = None

    def _embed(self, input_ids: Tensor) -> Tensor:
        """The embedding layer's forward (N,) → (N, d): what slots feed in place of E[token].

        Safe: where nothing is mixed it is the stock lookup. Not in place, `hooked` would say so at the start, and
        replay parity would be off by nats.
        """
        rows = self._lookup(input_ids)
        if self.batch is None:
            return rows
        plan: BatchPlan | None = getattr(self.batch, "ngrpo", None)  # None while a graph is captured: it must do all
        if plan is not None and not plan.feeds:
            return rows
        if self.batch.forward_mode.is_decode():
            return self._sketched(self._next_input(rows, self.batch.req_pool_indices))
        return rows if plan is None else self._replayed(rows, plan)

    def _next_input(self, rows: Tensor, slot: Tensor) -> Tensor:
        """A decoding step's inputs (B, d): what the slot feeds where it is on, elsewhere exactly E[token]."""
        return torch.where(self.on[slot][:, None], self.fed[slot], rows)

    def _sketched(self, fed: Tensor) -> Tensor:
        """A decoding step's inputs (B, d), unchanged: their sketches are left where the next sampling looks."""
        torch.mm(fed, self.signs, out=self.read[: len(fed)])
        return fed

    def _replayed(self, rows: Tensor, plan: BatchPlan) -> Tensor:
        """A prefill's inputs (N, d), fed again what was fed when its response was sampled."""
        places, ids, weights, sigma, seed, position = (on_device(t, rows.device) for t in plan.replay)
        fed = blend(self._lookup(ids.flatten()).view(*ids.shape, -1), weights)
        if plan.noisy:
            fed = torch.where((sigma > 0)[:, None], add_noise(fed, sigma, seed, position), fed)
        out = rows.index_copy(0, places, fed)
        plan.read = (out[places] @ self.signs).to("cpu", non_blocking=True)
        return out

    def sample(self, stock: Callable[[Any, Any], Tensor], out: Any, batch: Any) -> Tensor:
        """Next tokens (B,) of a batch; sets its log-probs, its slots' next inputs and its plan's steps."""
        plan: BatchPlan = batch.ngrpo
        slot = batch.req_pool_indices.long()
        if plan.extends:
            self.on.index_fill_(0, slot, False)  # a number through an index would wait for the device
            if plan.seeds is not None:
                self.seed[slot] = on_device(plan.seeds, slot.device)
                self.state[slot] = on_device(plan.states, slot.device)
        if not plan.any:
            return stock(out, batch)
        if plan.mixes and not plan.extends:  # a copy on a CPU too: the next step's lookup writes there
            plan.read = self.read[: len(slot)].to("cpu", non_blocking=True, copy=True)
        if self.stale and plan.mixes:
            self._rebuild()
        if self.weights is None:
            self.weights = self._fingerprint().to("cpu", non_blocking=True)  # the scheduler waits for this stream
        self.runner._preprocess_logits(out, batch.sampling_info)
        logits = out.next_token_logits
        token = None if plan.all else self._stock_tokens(out, batch, logits.clone())
        z = scale(logits, batch.sampling_info.temperatures)
        token = self._write(plan, z, token, slot, batch)
        if batch.return_logprob:
            self._log_probs(plan, out, z, token)
        return token

    def _stock_tokens(self, out: Any, batch: Any, scratch: Tensor) -> Tensor:
        """What the stock sampler draws (it works in place, so on a copy), with its log-probs in `out`."""
        logits, out.next_token_logits = out.next_token_logits, scratch
        token = self.runner.sampler(
            out, batch.sampling_info, batch.return_logprob, batch.top_logprobs_nums, batch.token_ids_logprobs
        )
        out.next_token_logits = logits
        return token

    def _write(self, plan: BatchPlan, z: Tensor, token: Tensor | None, slot: Tensor, batch: Any) -> Tensor:
        """Draw, mix, and set what the slots feed next; token (B,): the stock sampler's, for rows that aren't ours."""
        info, seed, position = batch.sampling_info, self.seed[slot], batch.seq_lens
        p = torch.softmax(z, -1)
        if plan.restricts:
            p = restrict(p, info.top_ps, info.top_ks)  # sglang's word for no limit is more than any vocabulary
        drawn = draw(p, rng.uniform(seed, position, rng.TOKEN))
        rms = self._row_rms() if plan.needs_rms else None
        if len(plan.groups) == 1 and plan.all:
            mixer, rows = plan.groups[0]
            return self._mix(plan, mixer, rows, z, drawn, slot, seed, position, rms)
        token = drawn.clone() if token is None else token.to(drawn.dtype)
        for mixer, rows in plan.groups:
            own = on_device(torch.tensor(rows), z.device)
            token[own] = self._mix(plan, mixer, rows, z[own], drawn[own], slot[own], seed[own], position[own], rms)
        return token

    def _mix(
        self,
        plan: BatchPlan,
        mixer: Mixer,
        rows: list[int],
        z: Tensor,
        drawn: Tensor,
        slot: Tensor,
        seed: Tensor,
        position: Tensor,
        rms: Tensor | None,
    ) -> Tensor:
        """What one mixer's rows of the batch write (B,); sets what they feed next and the plan's steps."""
        if not (mixer.mixes or mixer.redraws):
            return drawn
        table = columns(mixer, self.neighbors)
        state = self.state[slot] if mixer.stateful else None
        step = mixer.step(z, drawn, seed, position, table, rms=rms, state=state)
        if not mixer.mixes:
            return step.token
        step = measured(step, self._lookup)
        self._set_next_input(step, slot, seed, position)
        plan.steps.append((rows, on_host(step)))  # the scheduler waits for this stream before it reads them
        return step.token

    def _set_next_input(self, step: Step, slot: Tensor, seed: Tensor, position: Tensor) -> None:
        """Write what these slots feed next; tensor-parallel ranks all do, in the same order, so their lookups meet."""
        self.on[slot] = step.on
        self.fed[slot] = feed(step, seed, position, self._lookup, self._mixture)
        if step.state is not None:
            self.state[slot] = step.state

    def _mixture(self, weights: Tensor) -> Tensor:
        """Σ p(v) E[v] over the whole vocabulary: (B, V) → (B, d); each rank sums its part of E."""
        E, layer = self.embedding.weight.data, self.embedding
        first = layer.shard_indices.org_vocab_start_index
        part = weights[:, first : first + E.shape[0]]
        fed = weighted_sum(part, E[: part.shape[1]])
        if layer.tp_size > 1:
            from sglang.srt.distributed import tensor_model_parallel_all_reduce

            fed = tensor_model_parallel_all_reduce(fed)
        return fed.to(E.dtype)

    def _row_rms(self) -> Tensor:
        """The root mean square of each row of E (V,), of the weights in force."""
        if self.rms is None:
            self.rms = self._whole(self.embedding).float().square().mean(-1).sqrt()
        return self.rms

    def _log_probs(self, plan: BatchPlan, out: Any, z: Tensor, token: Tensor) -> None:
        """Log-probs of the written tokens, in `out` as the stock sampler leaves them."""
        ours = log_prob(z, token)
        if not plan.all:
            mine = on_device(torch.tensor([t is not None for t in plan.requests]), z.device)
            ours = torch.where(mine, ours, out.next_token_logprobs.to(ours.dtype))
        out.next_token_logprobs = ours

    def weights_changed(self) -> None:
        """New weights are in: the table is rebuilt before the next mixed step, if it is to follow them."""
        self.stale = self.settings.refresh == "update" and self.source is not None
        self.rms = self.weights = None

    def settings_of(self, mixer: Mixer, temperature: float) -> bytes:
        """The digest of how a request of this mixer and temperature is mixed here."""
        fixed = self.source is not None and self.settings.refresh == "never"
        return settings_digest(mixer, temperature, self.source.digest if fixed else b"")

    @torch.no_grad()
    def _fingerprint(self) -> Tensor:
        """The fingerprint of the weights in force: each rank's part of E, summed."""
        layer = self.embedding
        own = fingerprint(layer.weight.data, layer.weight.dtype, layer.shard_indices.org_vocab_start_index)
        if layer.tp_size > 1:
            from sglang.srt.distributed import tensor_model_parallel_all_reduce

            own = tensor_model_parallel_all_reduce(own[None])[0]
        return own

    @torch.no_grad()
    def _rebuild(self) -> None:
        """The neighbor table of the current weights, written in place; every rank computes the same one."""
        E = self._whole(self.runner.model.lm_head if self.settings.space == "lm_head" else self.embedding)
        ids = nearest(E, self.source.k, self.source.metric, exclude=self.source.excluded.to(E.device))
        self.neighbors.copy_(ids)
        self.stale = False

    def _whole(self, layer: Any) -> Tensor:
        """A vocab-parallel layer's rows (V, d), gathered from all ranks, without padding rows."""
        rows = layer.weight.data
        if layer.tp_size > 1:
            from sglang.srt.distributed import tensor_model_parallel_all_gather

            rows = tensor_model_parallel_all_gather(rows.contiguous(), dim=0)
        return rows[: self.runner.model_config.vocab_size]


def on_device(tensor: Tensor, device: Any) -> Tensor:
    """A CPU tensor on the device, without waiting for what the device is doing: through pinned memory."""
    if torch.device(device).type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def on_host(step: Step) -> Step:
    """What requests remember of a step, on its way to the CPU: complete once the stream that made it has got here."""
    ids, weights, on, sigma, state, likelihood, scores = (
        None if t is None else t.to("cpu", non_blocking=True)
        for t in (step.ids, step.weights, step.on, step.sigma, step.state, step.likelihood, step.scores)
    )
    return Step(step.token, on, ids, weights, sigma=sigma, state=state, likelihood=likelihood, scores=scores)


def _embedding_of(model: Any) -> Any:
    """The model's input embedding layer."""
    layer = getattr(getattr(model, "model", None), "embed_tokens", None)  # not every get_input_embeddings() gives it
    if not hasattr(layer, "tp_size"):
        raise UserError(
            f"{type(model).__name__} has no vocab-parallel input embedding", where="sglang plugin: model architecture"
        )
    return layer
