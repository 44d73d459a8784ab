"""Mixing on the model runner: per-slot state, what is sampled, and what is fed (Eq. 6–11).

A running request owns a slot (`req_pool_idx`). Sampling step t writes the slot's next input, the embedding lookup of
step t+1 reads it: on the same stream, at fixed addresses, so that the overlap schedule and a captured CUDA graph need
nothing more. A slot's state is "token, or ids and weights", padded to the widest mixer; engines that are started for
noise or for whole-vocabulary mixtures have one more table each (σ; the fed vector) and one more term in `_fed`.

Departures, and why:
1. Tokens of our requests are drawn by `ngrpo.method.sampling` from their own seeds instead of the stock sampler's
   shared generator: a sample then depends on its request alone. Stock requests go through the stock sampler.
2. Log-probs of our requests are of the whole distribution (stock 0.4.6 renormalizes them to top-p).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ngrpo.engines.model_folder import columns, is_dense
from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import GaussianMixer, Mixer, NoMixer, Step, blend
from ngrpo.method.neighbors import Table, nearest
from ngrpo.method.records import Noise, Record
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
    weights: list[list[int]] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)  # where noise is fed: one a step, from the first on
    state: int = 0  # what the mixer wants back at the next step

    @property
    def dense(self) -> bool:
        """Whether the fed vectors are of the whole vocabulary: nothing records them."""
        return is_dense(self.mixer)

    def record(self, tokens: list[int], start: int) -> Record:
        """The response's record; start: position of its first token."""
        if self.dense:
            return Record.of(tokens, [], [], [], k=1)
        if not self.sigmas:
            return Record.of(tokens, self.index, self.ids, self.weights, k=self.mixer.width)
        sigma = np.array(self.sigmas[: max(1, len(tokens) - 1)], dtype=np.float32)
        noise = Noise(self.seed, start, sigma[:1] if (sigma == sigma[0]).all() else sigma)
        return Record.of(tokens, [], [], [], k=1, noise=noise if self.mixer.replay else None)


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
        self.lost = False  # a prefill would need dense mixtures again, which nothing kept
        self.noisy = any(isinstance(mixer, GaussianMixer) for mixer in groups)
        self.seeds = self.states = self.replay = self.noise = None
        if self.extends and self.any:
            self.seeds = torch.tensor([t.seed if t else 0 for t in self.tickets])
            self.states = torch.tensor([t.state if t else 0 for t in self.tickets], dtype=torch.int32)
            self.replay, self.noise = self._replay(batch, width)
        self.steps: Tensor | None = None  # (B, 3 + 2·width) int32 on the CPU, set by sampling: see `_pack`

    def _replay(self, batch: Any, width: int) -> tuple[tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """What this prefill must feed again (after a retraction, or for a later chunk of a response).

        Mixtures: places (M,) in its input, ids and weights (M, width). Noise: places (N,), seeds, positions and sigmas.
        """
        mixed, noisy, offset = [], [], 0
        for req, ticket, prefix, extend in zip(
            self.reqs, self.tickets, batch.prefix_lens, batch.extend_lens, strict=True
        ):
            first = len(req.origin_input_ids)
            for i, index in enumerate(ticket.index if ticket else ()):
                place = first + index - prefix
                if not 0 <= place < extend:
                    continue
                if ticket.dense:
                    self.lost = True
                elif ticket.sigmas:
                    noisy.append((offset + place, ticket.seed, first + index, ticket.sigmas[i]))
                else:
                    missing = [0] * (width - len(ticket.ids[i]))
                    mixed.append((offset + place, ticket.ids[i] + missing, ticket.weights[i] + missing))
            offset += extend
        replay = noise = None
        if mixed:
            at, ids, weights = zip(*mixed, strict=True)
            replay = torch.tensor(at), torch.tensor(ids), torch.tensor(weights, dtype=torch.int32)
        if noisy:
            at, seed, position, sigma = zip(*noisy, strict=True)
            noise = torch.tensor(at), torch.tensor(seed), torch.tensor(position), torch.tensor(sigma)
        return replay, noise

    def absorb(self, before: Sequence[int]) -> None:
        """Keep this batch's mixed steps; before: each response's length before this batch's results came in."""
        if self.steps is None:
            return
        steps = self.steps.tolist()
        sigmas = self.steps[:, 2].contiguous().view(torch.float32).tolist()
        for req, ticket, length, sigma, (on, state, _, *rest) in zip(
            self.reqs, self.tickets, before, sigmas, steps, strict=True
        ):
            if ticket is None or len(req.output_ids) != length + 1:
                continue
            ticket.state = state
            if on:
                k, width = ticket.mixer.width, len(rest) // 2
                ticket.index.append(length)
                if sigma > 0:
                    ticket.sigmas.append(sigma)
                else:
                    ticket.ids.append(rest[:k])
                    ticket.weights.append(rest[width : width + k])


class MixState:
    """The tables of one model runner, and the two places where they are used: sampling and the embedding lookup."""

    def __init__(self, runner: Any, table: Table | None, settings: Any):
        """settings: what `install` was told (`hooks.Settings`)."""
        self.runner, self.source, self.settings = runner, table, settings
        self.embedding = _embedding_of(runner.model)
        device, slots = runner.device, runner.req_to_token_pool.size + 8
        rows = runner.model_config.vocab_size
        if table is not None:
            table.check(rows, table.k, table.metric)
        self.width = settings.width
        self.neighbors = table.ids.to(device) if table else None
        self.stale = False
        self.seed = torch.zeros(slots, dtype=torch.int64, device=device)
        self.on = torch.zeros(slots, dtype=torch.bool, device=device)
        self.ids = torch.zeros(slots, self.width, dtype=torch.int64, device=device)
        self.weights = torch.zeros(slots, self.width, dtype=torch.int32, device=device)
        self.state = torch.zeros(slots, dtype=torch.int32, device=device)
        self.sigma = torch.zeros(slots, device=device) if settings.noise else None
        d, dtype = self.embedding.weight.shape[1], self.embedding.weight.dtype
        self.dense = torch.zeros(slots, d, dtype=dtype, device=device) if settings.dense else None
        self.is_dense = torch.zeros(slots, dtype=torch.bool, device=device) if settings.dense else None
        self.rms: Tensor | None = None  # (V,), of the rows of E; computed when noise first needs it
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
            return self._fed(input_ids, batch.req_pool_indices.long(), batch.positions)
        if plan is None or (plan.replay is None and plan.noise is None):
            return self._lookup(input_ids)
        fed = self._lookup(input_ids)
        if plan.replay is not None:
            at, ids, weights = (t.to(input_ids.device, non_blocking=True) for t in plan.replay)
            rows = self._lookup(ids.flatten()).view(*ids.shape, -1)
            fed = fed.index_copy(0, at, blend(rows, weights))
        if plan.noise is not None:
            at, seed, position, sigma = (t.to(input_ids.device, non_blocking=True) for t in plan.noise)
            fed = fed.index_copy(0, at, _with_noise(fed[at], sigma, seed, position))
        return fed

    def _fed(self, token: Tensor, slot: Tensor, position: Tensor) -> Tensor:
        """A decoding step's inputs (B, d): ẽ where the slot mixes, elsewhere exactly E[token]."""
        on = self.on[slot]
        if token.device.type == "cpu" and not on.any():
            return self._lookup(token)
        ids = torch.where(on[:, None], self.ids[slot], pad(token.long()[:, None], (0, self.width - 1)))
        rows = self._lookup(ids.flatten()).view(*ids.shape, -1)
        fed = torch.where(on[:, None], blend(rows, self.weights[slot]), rows[:, 0])
        if self.sigma is not None:
            sigma = self.sigma[slot]
            noisy = _with_noise(fed, sigma, self.seed[slot], position.long())
            fed = torch.where((on & (sigma > 0))[:, None], noisy, fed)
        if self.dense is not None:
            fed = torch.where((on & self.is_dense[slot])[:, None], self.dense[slot], fed)
        return fed

    def sample(self, stock: Callable[[Any, Any], Tensor], out: Any, batch: Any) -> Tensor:
        """Next tokens (B,) of a batch; sets its log-probs, its slots' next inputs and its plan's steps."""
        plan: Plan = batch.ngrpo
        slot = batch.req_pool_indices.long()
        if plan.extends:
            self.on[slot] = False
            if plan.seeds is not None:
                self.seed[slot] = plan.seeds.to(slot.device, non_blocking=True)
                self.state[slot] = plan.states.to(slot.device, non_blocking=True)
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
        rms = self._row_rms() if plan.noisy else None
        steps = []
        for mixer, rows in plan.groups:
            own = slice(None) if rows is None else rows.to(z.device, non_blocking=True)
            table, state = columns(mixer, self.neighbors), self.state[slot[own]]
            step = mixer.step(z[own], drawn[own], seed[own], position[own], table, rms=rms, state=state)
            steps.append((own, _widen(step, self.width)))
        if len(steps) == 1 and plan.all:
            whole = steps[0][1]
        else:
            whole = Step(
                drawn.clone() if token is None else token.to(drawn.dtype),
                torch.zeros_like(drawn, dtype=torch.bool),
                drawn[:, None].repeat(1, self.width),
                torch.zeros(len(drawn), self.width, dtype=torch.int32, device=drawn.device),
            )
            for own, step in steps:
                for target, part in zip(whole[:4], step[:4], strict=True):
                    target[own] = part
        if plan.mixes:
            self.on[slot], self.ids[slot], self.weights[slot] = whole.on, whole.ids, whole.weights
            for own, step in steps:
                self._write_more(slot[own], step)
            plan.steps = self._pack(whole, slot).to("cpu", non_blocking=True)  # the scheduler waits for this stream
        return whole.token

    def _write_more(self, slot: Tensor, step: Step) -> None:
        """A step's state, noise and dense mixture into its slots."""
        if step.state is not None:
            self.state[slot] = step.state
        if self.sigma is not None:
            self.sigma[slot] = 0.0 if step.sigma is None else step.sigma
        if self.dense is not None:
            self.is_dense[slot] = step.dense is not None
            if step.dense is not None:
                self.dense[slot] = self._mixture(step.dense)

    def _pack(self, step: Step, slot: Tensor) -> Tensor:
        """What the scheduler keeps of a step, (B, 3 + 2·width) int32: on | state | bits of sigma | ids | weights."""
        sigma = torch.zeros_like(step.on, dtype=torch.float32) if self.sigma is None else self.sigma[slot]
        head = torch.stack([step.on.int(), self.state[slot], sigma.view(torch.int32)], 1)
        return torch.cat([head, step.ids.int(), step.weights], 1)

    def _mixture(self, weights: Tensor) -> Tensor:
        """Σ p(v) E[v] over the whole vocabulary: (B, V) → (B, d); each rank sums its part of E."""
        E, layer = self.embedding.weight.data, self.embedding
        first = layer.shard_indices.org_vocab_start_index
        part = weights[:, first : first + E.shape[0]]
        fed = part.to(torch.float32) @ E[: part.shape[1]].float()
        if layer.tp_size > 1:
            from sglang.srt.distributed import tensor_model_parallel_all_reduce

            fed = tensor_model_parallel_all_reduce(fed)
        return fed.to(E.dtype)

    def _row_rms(self) -> Tensor:
        """The root mean square of each row of E (V,), of the weights in force."""
        if self.rms is None:
            self.rms = self._whole(self.embedding).float().square().mean(-1).sqrt()
        return self.rms

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
        self.stale = self.settings.refresh == "update" and self.source is not None
        self.rms = None

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


def _with_noise(rows: Tensor, sigma: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """Rows (B, d) plus σ·N(0, I) of each (seed, position), summed in float32."""
    noise = sigma[:, None] * rng.normal(seed, position, rows.shape[1])
    return (rows.float() + noise).to(rows.dtype)


def _embedding_of(model: Any) -> Any:
    """The model's input embedding layer."""
    found = getattr(getattr(model, "model", None), "embed_tokens", None)  # not every get_input_embeddings() gives it
    if not hasattr(found, "tp_size"):
        raise UserError(
            f"{type(model).__name__} has no vocab-parallel input embedding", where="sglang plugin: model architecture"
        )
    return found


def _widen(step: Step, width: int) -> Step:
    """The same step with ids and integer weights padded to `width` columns of weight 0."""
    missing = width - step.ids.shape[1]
    if missing == 0:
        return step
    return step._replace(ids=pad(step.ids, (0, missing)), weights=pad(step.weights, (0, missing)))
