"""The oracle: a small, readable sampling loop over transformers, in float32 on CPU.

One left-padded batch after another, a key-value cache, and at each step: scale, draw, mix, feed. It is the engine that
the tests hold the other one to, and `engine: transformers` where sglang can't run.

Departures: none beyond those of `ngrpo.method`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ngrpo.engines.contract import Request, Sample, Sampling
from ngrpo.engines.model_folder import check_mixer, columns, end_tokens, model_config, open_table
from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import blend
from ngrpo.method.records import Noise, Record
from ngrpo.method.sampling import draw, log_prob, restrict, scale


class TransformersEngine:
    """An engine (see `contract`) on a Hugging Face folder; batch_size: requests that run together."""

    def __init__(self, model: Path, neighbors: Path | None = None, *, batch_size: int = 64):
        from transformers import AutoModelForCausalLM

        self.table = open_table(neighbors, model)
        self.batch_size = batch_size
        self.context = model_config(model).get("max_position_embeddings")
        self.model = AutoModelForCausalLM.from_pretrained(
            model, torch_dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.ends = set(end_tokens(model))
        self._measure()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """The samples, in the order of the requests."""
        for request in requests:
            if not request.prompt:
                raise UserError("an empty prompt", where="request: prompt")
            check_mixer(
                request.mixer,
                metric=self.table.metric if self.table else None,
                k=self.table.k if self.table else None,
            )
            if self.context is not None and len(request.prompt) + sampling.max_new_tokens > self.context:
                raise UserError(
                    f"a prompt of {len(request.prompt)} tokens and {sampling.max_new_tokens} new ones exceed the "
                    f"model's {self.context} positions",
                    where="sampling: max_new_tokens",
                )
        chunks = [requests[i : i + self.batch_size] for i in range(0, len(requests), self.batch_size)]
        return [sample for chunk in chunks for sample in self._batch(chunk, sampling)]

    @torch.no_grad()
    def _batch(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """One batch to its end."""
        lengths = torch.tensor([len(r.prompt) for r in requests])
        width = int(lengths.max())
        prompts = torch.tensor([[0] * (width - len(r.prompt)) + list(r.prompt) for r in requests])
        mask = (torch.arange(width) >= width - lengths[:, None]).long()
        position_ids = (mask.cumsum(1) - 1).clamp_min(0)
        seed = torch.tensor([r.seed for r in requests])
        top_p = torch.full((len(requests),), sampling.top_p)
        top_k = torch.full((len(requests),), sampling.top_k)
        E = self.model.get_input_embeddings()
        ends = self.ends | set(sampling.stop_token_ids)
        written = [_Written() for _ in requests]
        cache, fed = None, E(prompts)
        for t in range(sampling.max_new_tokens):
            out = self.model(
                inputs_embeds=fed,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = out.past_key_values
            z = scale(out.logits[:, -1], sampling.temperature)
            position = lengths + t
            drawn = draw(restrict(torch.softmax(z, -1), top_p, top_k), rng.uniform(seed, position, rng.TOKEN))
            token, fed = self._mix(requests, z, drawn, seed, position, written)
            log_probs = log_prob(z, token).tolist()
            for sample, one, lp in zip(written, token.tolist(), log_probs, strict=True):
                sample.append(one, lp, ends)
            if all(sample.reason for sample in written):
                break
            mask = torch.cat([mask, torch.ones(len(requests), 1, dtype=torch.long)], 1)
            position_ids = position_ids[:, -1:] + 1
        return [sample.finish(request) for sample, request in zip(written, requests, strict=True)]

    def _mix(
        self,
        requests: Sequence[Request],
        z: Tensor,
        drawn: Tensor,
        seed: Tensor,
        position: Tensor,
        written: "list[_Written]",
    ) -> tuple[Tensor, Tensor]:
        """Each request's mixer decides what is written (B,) and what is fed (B, 1, d)."""
        E = self.model.get_input_embeddings()
        token = drawn.clone()
        groups: dict[object, list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(request.mixer, []).append(row)
        mixed: list[tuple[int, Tensor]] = []
        for mixer, members in groups.items():
            rows = torch.tensor(members)
            table = columns(mixer, None if self.table is None else self.table.ids)
            state = torch.tensor([written[row].state for row in members], dtype=torch.int32)
            step = mixer.step(z[rows], drawn[rows], seed[rows], position[rows], table, rms=self.rms, state=state)
            token[rows] = step.token
            for i, row in enumerate(members):
                written[row].state = 0 if step.state is None else int(step.state[i])
            for i in step.on.nonzero()[:, 0].tolist():
                row = members[i]
                if step.dense is not None:
                    mixed.append((row, step.dense[i] @ E.weight))
                elif step.sigma is not None:
                    written[row].noise(step.sigma[i])
                    noise = rng.normal(seed[row : row + 1], position[row : row + 1], E.weight.shape[1])[0]
                    mixed.append((row, E(token[row]) + step.sigma[i] * noise))
                else:
                    written[row].mix(step.ids[i], step.weights[i])
                    mixed.append((row, blend(E(step.ids[i])[None], step.weights[i][None])[0]))
        fed = E(token)
        for row, vector in mixed:
            fed[row] = vector
        return token, fed[:, None]

    def load_weights(self, model: Path) -> None:
        """Take the weights of another folder of the same architecture; the neighbor table stays."""
        other = type(self.model).from_pretrained(model, torch_dtype=torch.float32)
        self.model.load_state_dict(other.state_dict())
        self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        """The root mean square of each row of E, for mixers that add noise."""
        self.rms = self.model.get_input_embeddings().weight.square().mean(-1).sqrt()

    def close(self) -> None:
        """Nothing is held outside this process."""

    def __enter__(self) -> "TransformersEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Written:
    """A response in the making."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.reason: str | None = None
        self.index: list[int] = []
        self.ids: list[list[int]] = []
        self.weights: list[list[int]] = []
        self.sigmas: list[float] = []
        self.state = 0  # what the mixer wants back at the next step

    def noise(self, sigma: Tensor) -> None:
        """The token that is about to be written feeds noise of this size."""
        if self.reason is None:
            self.sigmas.append(float(sigma))

    def mix(self, ids: Tensor, weights: Tensor) -> None:
        """The token that is about to be written feeds this mixture."""
        if self.reason is None:
            self.index.append(len(self.tokens))
            self.ids.append(ids.tolist())
            self.weights.append(weights.tolist())

    def append(self, token: int, log_prob: float, ends: set[int]) -> None:
        """Write a token, unless the response has ended."""
        if self.reason is None:
            self.tokens.append(token)
            self.log_probs.append(log_prob)
            self.reason = "stop" if token in ends else None

    def finish(self, request: Request) -> Sample:
        """The sample."""
        noise = None
        if self.sigmas and request.mixer.replay:
            sigma = np.array(self.sigmas[: max(1, len(self.tokens) - 1)], dtype=np.float32)
            noise = Noise(request.seed, len(request.prompt), sigma[:1] if (sigma == sigma[0]).all() else sigma)
        k = request.mixer.width if self.ids else 1
        record = Record.of(self.tokens, self.index, self.ids, self.weights, k=k, noise=noise)
        return Sample(self.tokens, self.log_probs, self.reason or "length", record)
