"""Mixing on the model runner: per-slot state, what is sampled, and what is fed (Eq. 6–11).

A running request owns a slot (`req_pool_idx`). Sampling step t writes the slot's next input, the embedding lookup of
step t+1 reads it: on the same stream, at fixed addresses, so that the overlap schedule and a captured CUDA graph need
nothing more. A slot's state is "token, or ids and units", padded to the widest mixer; whatever else a mixer feeds
(noise of a key, a dense vector) is one more table here and one more term in `_fed`.

Departures, and why:
1. Tokens of our requests are drawn by `ngrpo.method.sampling` from their own seeds instead of the stock sampler's
   shared generator: a sample then depends on its request alone. Stock requests go through the stock sampler.
2. Log-probs of our requests are of the whole distribution (stock 0.4.6 renormalises them to top-p).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ngrpo.engines.neighbours import columns
from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import Mixer, NoMixer, Step, blend
from ngrpo.method.neighbours import Table, nearest
from ngrpo.method.sampling import draw, log_prob, restrict, scale

logger = logging.getLogger(__name__)


@dataclass
class Ticket:
    """What a request of ours carries: its seed and mixer, and the mixed steps of its response so far."""

    seed: int
    mixer: Mixer
    batch: tuple[str, int] | None = None
    index: list[int] = field(default_factory=list)  # in the response, ascending
    ids: list[list[int]] = field(default_factory=list)
    units: list[list[int]] = field(default_factory=list)


class Plan:
    """What one scheduled batch needs from us; goes from the scheduler to the model runner and back."""

    def __init__(self, batch: Any, width: int):
        self.reqs: list[Any] = batch.reqs
        self.tickets: list[Ticket | None] = [getattr(r, "ngrpo", None) for r in batch.reqs]
        groups: dict[Mixer, list[int]] = {}
        for row, ticket in enumerate(self.tickets):
            if ticket is not None:
                groups.setdefault(ticket.mixer, []).append(row)
        ours = [row for rows in groups.values() for row in rows]
        self.any, self.all = bool(ours), len(ours) == len(self.reqs)
        self.groups = [(m, torch.tensor(rows) if len(rows) < len(self.reqs) else None) for m, rows in groups.items()]
        self.mixes = any(not isinstance(mixer, NoMixer) for mixer in groups)
        limits = [self.reqs[row].sampling_params for row in ours]
        self.restricts = any(p.top_p < 1 or p.top_k < 1 << 30 for p in limits)
        self.extends: bool = batch.forward_mode.is_extend()
        self.seeds = torch.tensor([t.seed if t else 0 for t in self.tickets]) if self.extends and self.any else None
        self.replay = self._replay(batch, width) if self.extends and self.any else None
        self.steps: Tensor | None = None  # (B, 1 + 2·width) int32 on the CPU: on | ids | units, set by sampling

    def _replay(self, batch: Any, width: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """Mixed steps that this prefill must feed again: positions (M,) in its input, ids and units (M, width)."""
        at, ids, units, offset = [], [], [], 0
        for req, ticket, prefix, extend in zip(
            self.reqs, self.tickets, batch.prefix_lens, batch.extend_lens, strict=True
        ):
            for i, index in enumerate(ticket.index if ticket else ()):
                position = len(req.origin_input_ids) + index - prefix
                if 0 <= position < extend:
                    at.append(offset + position)
                    ids.append(ticket.ids[i] + [0] * (width - len(ticket.ids[i])))
                    units.append(ticket.units[i] + [0] * (width - len(ticket.units[i])))
            offset += extend
        if not at:
            return None
        return torch.tensor(at), torch.tensor(ids), torch.tensor(units, dtype=torch.int32)

    def absorb(self, before: Sequence[int]) -> None:
        """Keep this batch's mixed steps; before: each response's length before this batch's results came in."""
        if self.steps is None:
            return
        steps = self.steps.tolist()
        for req, ticket, length, (on, *rest) in zip(self.reqs, self.tickets, before, steps, strict=True):
            if on and len(req.output_ids) == length + 1:
                k, width = ticket.mixer.width, len(rest) // 2
                ticket.index.append(length)
                ticket.ids.append(rest[:k])
                ticket.units.append(rest[width : width + k])


class MixState:
    """The tables of one model runner, and the two places where they are used: sampling and the embedding lookup."""

    def __init__(self, runner: Any, table: Table | None, refresh: str, width: int):
        self.runner, self.refresh, self.source = runner, refresh, table
        self.embedding = _embedding_of(runner.model)
        device, slots = runner.device, runner.req_to_token_pool.size + 8
        rows = runner.model_config.vocab_size
        if table is not None:
            table.check(rows, table.k, table.metric)
        self.width = width
        self.neighbours = table.ids.to(device) if table else None
        self.stale = False
        self.seed = torch.zeros(slots, dtype=torch.int64, device=device)
        self.on = torch.zeros(slots, dtype=torch.bool, device=device)
        self.ids = torch.zeros(slots, self.width, dtype=torch.int64, device=device)
        self.units = torch.zeros(slots, self.width, dtype=torch.int32, device=device)
        self.batch: Any = None  # of the forward pass that is running
        self._lookup, self._forward = self.embedding.forward, runner.model.forward
        self.embedding.forward, runner.model.forward = self._embed, self._run

    def hooked(self) -> bool:
        """Whether the model runs through this state."""
        model = self.runner.model
        return model.forward == self._run and _embedding_of(model).forward == self._embed

    def _run(self, input_ids: Tensor, positions: Tensor, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's forward, during which the embedding lookup knows its batch."""
        self.batch = forward_batch
        try:
            return self._forward(input_ids, positions, forward_batch, *args, **kwargs)
        finally:
            self.batch = None

    def _embed(self, input_ids: Tensor) -> Tensor:
        """The embedding layer's forward: (N,) → (N, d), one lookup whatever is mixed."""
        batch = self.batch
        if batch is None:
            return self._lookup(input_ids)
        plan: Plan | None = getattr(batch, "ngrpo", None)  # None while a CUDA graph is captured: it must do everything
        if batch.forward_mode.is_decode():
            if plan is not None and not plan.mixes:
                return self._lookup(input_ids)
            return self._fed(input_ids, batch.req_pool_indices.long())
        if plan is None or plan.replay is None:
            return self._lookup(input_ids)
        at, ids, units = (t.to(input_ids.device, non_blocking=True) for t in plan.replay)
        rows = self._lookup(torch.cat([input_ids, ids.flatten()]))
        fed, candidates = rows[: len(input_ids)], rows[len(input_ids) :]
        return fed.index_copy(0, at, blend(candidates.view(*ids.shape, -1), units))

    def _fed(self, token: Tensor, slot: Tensor) -> Tensor:
        """A decoding step's inputs (B, d): ẽ where the slot mixes, elsewhere exactly E[token]."""
        on = self.on[slot]
        if token.device.type == "cpu" and not on.any():
            return self._lookup(token)
        ids = torch.where(on[:, None], self.ids[slot], pad(token.long()[:, None], (0, self.width - 1)))
        rows = self._lookup(ids.flatten()).view(*ids.shape, -1)
        return torch.where(on[:, None], blend(rows, self.units[slot]), rows[:, 0])

    def sample(self, stock: Callable[[Any, Any], Tensor], out: Any, batch: Any) -> Tensor:
        """Next tokens (B,) of a batch; sets its log-probs, its slots' next inputs and its plan's steps."""
        plan: Plan = batch.ngrpo
        slot = batch.req_pool_indices.long()
        if plan.extends:
            self.on[slot] = False
            if plan.seeds is not None:
                self.seed[slot] = plan.seeds.to(slot.device, non_blocking=True)
        if not plan.any:
            return stock(out, batch)
        if self.stale and plan.mixes:
            self._rebuild()
        self.runner._preprocess_logits(out, batch.sampling_info)
        logits = out.next_token_logits
        token = None if plan.all else self._stock_tokens(out, batch, logits.clone())
        z = scale(self._process(logits, batch.sampling_info), batch.sampling_info.temperatures)
        token = self._write(plan, z, token, slot, batch)
        if batch.return_logprob:
            self._log_probs(plan, out, z, token, batch)
        return token

    def _stock_tokens(self, out: Any, batch: Any, scratch: Tensor) -> Tensor:
        """What the stock sampler draws (it works in place, so on a copy), with its log-probs in `out`."""
        kept, out.next_token_logits = out.next_token_logits, scratch
        token = self.runner.sampler(
            out, batch.sampling_info, batch.return_logprob, batch.top_logprobs_nums, batch.token_ids_logprobs
        )
        out.next_token_logits = kept
        return token

    def _process(self, logits: Tensor, info: Any) -> Tensor:
        """Custom logit processors and the treatment of NaN, as in the stock sampler."""
        if info.has_custom_logit_processor:
            self.runner.sampler._apply_custom_logit_processor(logits, info)
        if self.runner.sampler.use_nan_detection and torch.isnan(logits).any():
            logger.warning("NaN in the logits")
            return torch.where(torch.isnan(logits), torch.full_like(logits, -1e5), logits)
        return logits

    def _write(self, plan: Plan, z: Tensor, token: Tensor | None, slot: Tensor, batch: Any) -> Tensor:
        """Draw, mix, and set what the slots feed next; token (B,): the stock sampler's, for rows that aren't ours."""
        info, seed, position = batch.sampling_info, self.seed[slot], batch.seq_lens
        p = torch.softmax(z, -1)
        if plan.restricts:
            p = restrict(p, info.top_ps, torch.where(info.top_ks >= z.shape[-1], -1, info.top_ks))
        drawn = draw(p, rng.uniform(seed, position, rng.TOKEN))
        steps = []
        for mixer, rows in plan.groups:
            table = columns(mixer, self.neighbours)
            if rows is None:
                steps.append((rows, _widen(mixer.step(z, drawn, seed, position, table), self.width)))
            else:
                rows = rows.to(z.device, non_blocking=True)
                step = mixer.step(z[rows], drawn[rows], seed[rows], position[rows], table)
                steps.append((rows, _widen(step, self.width)))
        if len(steps) == 1 and steps[0][0] is None:
            whole = steps[0][1]
        else:
            whole = Step(
                drawn.clone() if token is None else token.to(drawn.dtype),
                torch.zeros_like(drawn, dtype=torch.bool),
                drawn[:, None].repeat(1, self.width),
                torch.zeros(len(drawn), self.width, dtype=torch.int32, device=drawn.device),
            )
            for rows, step in steps:
                for target, part in zip(whole[:4], step[:4], strict=True):
                    target[rows] = part
        if plan.mixes:
            self.on[slot], self.ids[slot], self.units[slot] = whole.on, whole.ids, whole.units
            packed = torch.cat([whole.on[:, None].int(), whole.ids.int(), whole.units], 1)
            plan.steps = packed.to("cpu", non_blocking=True)  # on the stream whose end the scheduler waits for
        return whole.token

    def _log_probs(self, plan: Plan, out: Any, z: Tensor, token: Tensor, batch: Any) -> None:
        """Log-probs of the written tokens, in `out` as the stock sampler leaves them."""
        if any(n > 0 for n in batch.top_logprobs_nums) or any(t is not None for t in batch.token_ids_logprobs):
            from sglang.srt.layers import sampler

            logp = torch.log_softmax(z, -1)
            top, chosen = batch.top_logprobs_nums, batch.token_ids_logprobs
            out.next_token_top_logprobs_val, out.next_token_top_logprobs_idx = sampler.get_top_logprobs(logp, top)
            out.next_token_token_ids_logprobs_val, out.next_token_token_ids_logprobs_idx = (
                sampler.get_token_ids_logprobs(logp, chosen)
            )
        ours = log_prob(z, token)
        if not plan.all:
            mine = torch.tensor([t is not None for t in plan.tickets], device=z.device)
            ours = torch.where(mine, ours, out.next_token_logprobs.to(ours.dtype))
        out.next_token_logprobs = ours

    def weights_changed(self) -> None:
        """New weights are in: the table is rebuilt before the next mixed step, if it is to follow them."""
        self.stale = self.refresh == "update" and self.source is not None

    @torch.no_grad()
    def _rebuild(self) -> None:
        """The neighbour table of the current embedding, written in place; every rank computes the same one."""
        E = self.embedding.weight.data
        if self.embedding.tp_size > 1:
            from sglang.srt.distributed import tensor_model_parallel_all_gather

            E = tensor_model_parallel_all_gather(E.contiguous(), dim=0)
        E = E[: self.neighbours.shape[0]]
        ids = nearest(E, self.source.k, self.source.metric, exclude=self.source.excluded.to(E.device))
        self.neighbours.copy_(ids)
        self.stale = False


def _embedding_of(model: Any) -> Any:
    """The model's input embedding layer."""
    found = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else model.model.embed_tokens
    if not hasattr(found, "tp_size"):
        raise UserError(
            f"{type(model).__name__} has no vocab-parallel input embedding", where="sglang plugin: model architecture"
        )
    return found


def _widen(step: Step, width: int) -> Step:
    """The same step with ids and units padded to `width` columns of weight 0."""
    missing = width - step.ids.shape[1]
    if missing == 0:
        return step
    return step._replace(ids=pad(step.ids, (0, missing)), units=pad(step.units, (0, missing)))
