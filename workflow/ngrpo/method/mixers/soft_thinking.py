"""Soft Thinking (arXiv 2505.15778), sampling only.

Departure: it writes the sampled token; its paper doesn't say which is written.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.method.mixers.interface import Mixer, Step, gate_open, next_state, only_token, quantize
from ngrpo.method.sampling import restrict


@dataclass(frozen=True)
class SoftThinkingMixer(Mixer):
    """Soft Thinking (arXiv 2505.15778), sampling only: every thinking step feeds Σ p(v) E[v].

    keep None: over the whole vocabulary. keep n: the authors' variant, the n largest of what top_k, top_p and min_p
    leave, renormalized; cold_steps steps in a row with entropy below cold_entropy then force the token stop_after.
    stop_after: the end of thinking, after whose step decoding is standard; None: never.
    """

    keep: int | None = None
    top_k: int = 30
    top_p: float = 0.95
    min_p: float = 0.001
    cold_entropy: float = 0.01
    cold_steps: int = 256
    stop_after: int | None = None

    kind: ClassVar[str] = "soft-thinking"
    mixes_its_end: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """The kept candidates, or 1 where the whole vocabulary is mixed."""
        return self.keep or 1

    @property
    def dense(self) -> bool:
        """Whether the whole vocabulary is mixed."""
        return self.keep is None

    def step(
        self,
        z: Tensor,
        token: Tensor,
        seed: Tensor,
        position: Tensor,
        table: Tensor | None = None,
        *,
        rms: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Step:
        """state counts the cold steps so far."""
        p = torch.softmax(z, -1)
        state = torch.zeros_like(token, dtype=torch.int32) if state is None else state
        on = gate_open(self.stop_after, state, self.gate(seed, position))
        if self.keep is None:
            return Step(token, on, *only_token(token), dense=p, state=next_state(self.stop_after, state, token))
        if self.stop_after is not None:
            entropy = -(p * torch.log_softmax(z, -1)).sum(-1)
            cold = (state + 1).masked_fill(~(entropy < self.cold_entropy), 0)
            state = torch.where(on, cold, state)
            token = token.masked_fill(on & (cold >= self.cold_steps), self.stop_after)
        top_p, top_k = torch.full_like(p[:, 0], self.top_p), torch.full_like(token, self.top_k)
        restricted = restrict(p, top_p, top_k)
        restricted = restricted * (restricted >= self.min_p * p.amax(-1, keepdim=True))
        weight, ids = restricted.topk(min(self.keep, p.shape[-1]), -1)
        weights = quantize(weight / weight.sum(-1, keepdim=True))
        return Step(token, on, ids, weights, state=next_state(self.stop_after, state, token))
