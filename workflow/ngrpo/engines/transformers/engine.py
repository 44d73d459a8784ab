"""The oracle: a small, readable sampling loop over transformers, in float32 on CPU.

One left-padded batch after another, a key-value cache, and at each step: scale, draw, mix, feed. It is the engine that
the tests hold the other one to, and `engine: transformers` where sglang can't run.

Departures: none beyond those of `ngrpo.method`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ngrpo.engines.contract import Request, Sample, Sampling
from ngrpo.engines.model_folder import check_mixer, columns, end_tokens, model_config, open_table
from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import Mixer, Step, feed, measured
from ngrpo.method.records import FedStep, Origin, Record, log_probs_of, settings_digest
from ngrpo.method.sampling import draw, log_prob, restrict, scale
from ngrpo.method.sketches import signs


def open(
    model: Path, neighbors: Path | None = None, mixers: Sequence[Mixer] = (), dtype: str | None = None, **machine: Any
) -> "TransformersEngine":
    """Start the oracle (see `ngrpo.engines.open_engine`), in float32 whatever the dtype. machine: batch_size."""
    engine = TransformersEngine(model, neighbors, **machine)
    for mixer in mixers:
        engine.check(mixer)
    return engine


class TransformersEngine:
    """An engine (see `contract`) on a Hugging Face folder; batch_size: requests that run together."""

    def __init__(self, model: Path, neighbors: Path | None = None, *, batch_size: int = 64):
        from transformers import AutoModelForCausalLM

        self.table = open_table(neighbors, model)
        self.batch_size = batch_size
        self.context = model_config(model).get("max_position_embeddings")
        self.model = AutoModelForCausalLM.from_pretrained(
            model, torch_dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
        ).eval()
        self.ends = set(end_tokens(model))
        self.signs = signs(self.model.get_input_embeddings().embedding_dim)
        self._measure()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """The samples, in the order of the requests."""
        for request in requests:
            if not request.prompt:
                raise UserError("an empty prompt", where="request: prompt")
            self.check(request.mixer)
            if self.context is not None and len(request.prompt) + sampling.max_new_tokens > self.context:
                raise UserError(
                    f"a prompt of {len(request.prompt)} tokens and {sampling.max_new_tokens} new ones exceed the "
                    f"model's {self.context} positions",
                    where="sampling: max_new_tokens",
                )
        chunks = [requests[i : i + self.batch_size] for i in range(0, len(requests), self.batch_size)]
        return [sample for chunk in chunks for sample in self._batch(chunk, sampling)]

    def check(self, mixer: Mixer) -> None:
        """Raise UserError unless the engine's table serves the mixer."""
        check_mixer(mixer, metric=self.table.metric if self.table else None, k=self.table.k if self.table else None)

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
        restricts = sampling.top_p < 1 or sampling.top_k > 0
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
            p = torch.softmax(z, -1)
            p = restrict(p, top_p, top_k) if restricts else p
            drawn = draw(p, rng.uniform(seed, position, rng.TOKEN))
            token, fed = self._mix(requests, z, drawn, seed, position, written)
            sketches = (fed[:, 0] @ self.signs).tolist()
            log_probs = log_prob(z, token).tolist()
            for sample, *one in zip(written, token.tolist(), log_probs, sketches, strict=True):
                sample.append(*one, ends)
            if all(sample.reason for sample in written):
                break
            mask = torch.cat([mask, torch.ones(len(requests), 1, dtype=torch.long)], 1)
            position_ids = position_ids[:, -1:] + 1
        table = b"" if self.table is None else self.table.digest
        settings = [settings_digest(request.mixer, sampling.temperature, table) for request in requests]
        return [sample.finish(*made) for sample, *made in zip(written, requests, settings, strict=True)]

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
        groups: dict[Mixer, list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(request.mixer, []).append(row)
        mixed: list[tuple[Tensor, Tensor]] = []
        for mixer, members in groups.items():
            rows = torch.tensor(members)
            table = columns(mixer, None if self.table is None else self.table.ids)
            state = torch.tensor([written[row].state for row in members], dtype=torch.int32)
            step = mixer.step(z[rows], drawn[rows], seed[rows], position[rows], table, rms=self.rms, state=state)
            step = measured(step, E)
            token[rows] = step.token
            for i, row in enumerate(members):
                written[row].mix(step, i)
            if step.on.any():
                mixed.append((rows[step.on], feed(step, seed[rows], position[rows], E, self._mixture)[step.on]))
        fed = E(token)
        for rows, vectors in mixed:
            fed[rows] = vectors
        return token, fed[:, None]

    def _mixture(self, weights: Tensor) -> Tensor:
        """Weights over the vocabulary (B, V) → Σ p(v) E[v] (B, d); row by row, so that no row depends on its batch."""
        E = self.model.get_input_embeddings().weight
        return torch.stack([row @ E for row in weights])

    def load_weights(self, model: Path) -> None:
        """Take the weights of another folder of the same architecture; the neighbor table stays."""
        other = type(self.model).from_pretrained(model, torch_dtype=torch.float32, trust_remote_code=False)
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
        self.steps: list[FedStep] = []
        self.state = 0  # what the mixer wants back at the next step

    def mix(self, step: Step, row: int) -> None:
        """The token that is about to be written feeds this step's row."""
        self.state = 0 if step.state is None else int(step.state[row])
        if self.reason is None and step.on[row]:
            sigma = 0.0 if step.sigma is None else float(step.sigma[row])
            fed = FedStep(len(self.tokens), step.ids[row].tolist(), step.weights[row].tolist(), sigma)
            own = None if step.likelihood is None else float(step.likelihood[row])
            scores = () if step.scores is None else tuple(step.scores[row].tolist())
            self.steps.append(fed._replace(likelihood=own, scores=scores))

    def append(self, token: int, log_prob: float, sketch: list[float], ends: set[int]) -> None:
        """Write a token, unless the response has ended; sketch: of what it feeds."""
        if self.reason is None:
            if self.steps and self.steps[-1].at == len(self.tokens):
                self.steps[-1] = self.steps[-1]._replace(sketch=tuple(sketch))
            self.tokens.append(token)
            self.log_probs.append(log_prob)
            self.reason = "stop" if token in ends else None

    def finish(self, request: Request, settings: bytes) -> Sample:
        """The sample; settings: digest of how it was mixed."""
        origin = Origin(request.seed, len(request.prompt), settings)
        log_probs_of(self.steps, self.log_probs, len(self.tokens) - 1)
        record = Record.of_steps(self.tokens, self.steps, request.mixer, origin)
        return Sample(self.tokens, self.log_probs, self.reason or "length", record)
