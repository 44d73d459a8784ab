"""Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.base import Mixer, Step, quantize


@dataclass(frozen=True)
class GumbelMixer(Mixer):
    """Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411): every step feeds the k likeliest after Gumbel noise.

    Candidates are the top k of log p + clamp(Gumbel, low, high); weights softmax(·/temperature) of the noisy scores
    (paper) or of the clean logits ("clean", the release). The written token is the first candidate.
    """

    k: int = 5
    temperature: float = 0.1
    low: float = -1.5
    high: float = 3.0
    weights: str = "noisy"

    kind: ClassVar[str] = "gumbel"

    def __post_init__(self) -> None:
        for name, good in (("k", self.k >= 1), ("temperature", self.temperature > 0), ("high", self.high > self.low)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer gumbel: {name}")
        self._check_choice("weights", ("noisy", "clean"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

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
        """The sampled token is not used: the noise has drawn one."""
        noise = rng.gumbel(seed, position, z.shape[-1]).clamp(self.low, self.high)
        noisy = torch.log_softmax(z, -1) + noise
        top, ids = noisy.topk(min(self.k, z.shape[-1]), -1)
        scores = top / self.temperature if self.weights == "noisy" else z.gather(-1, ids)
        on = torch.ones_like(token, dtype=torch.bool)
        return Step(ids[:, 0], on, ids, quantize(torch.softmax(scores, -1)))
