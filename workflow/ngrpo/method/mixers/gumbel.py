"""Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, before_end, gate_open, next_state, quantize


@dataclass(frozen=True)
class GumbelMixer(Mixer):
    """Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411): every step feeds the k likeliest after Gumbel noise.

    Candidates are the top k of log p + clamp(Gumbel, low, high); weights softmax(·/temperature) of the noisy scores
    (paper), or softmax of the candidates' clean logits ("clean", the release). text: the first candidate is written,
    which the noise has drawn (paper), or the sampled token ("sampled", the release: noise selects what is mixed and
    nothing else). stop_after: a token from whose step on nothing is mixed; the sampled token is written from then on.
    """

    k: int = 5
    temperature: float = 0.1
    low: float = -1.5
    high: float = 3.0
    weights: str = "noisy"
    text: str = "candidate"
    stop_after: int | None = None

    kind: ClassVar[str] = "gumbel"

    def __post_init__(self) -> None:
        for name, good in (("k", self.k >= 1), ("temperature", self.temperature > 0), ("high", self.high > self.low)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer gumbel: {name}")
        self._check_choice("weights", ("noisy", "clean"))
        self._check_choice("text", ("candidate", "sampled"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

    @property
    def writes_first_candidate(self) -> bool:
        """The one that the noise has drawn, unless the sampled token is written."""
        return self.text == "candidate"

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
        """Where the first candidate is written, the sampled token is used after `stop_after` alone."""
        noise = rng.gumbel(seed, position, z.shape[-1]).clamp(self.low, self.high)
        noisy = torch.log_softmax(z, -1) + noise
        top, ids = noisy.topk(min(self.k, z.shape[-1]), -1)
        scores = top / self.temperature if self.weights == "noisy" else z.gather(-1, ids)
        on = gate_open(self.stop_after, state, self.gate(seed, position))
        token = torch.where(on, ids[:, 0], token) if self.text == "candidate" else token
        on = before_end(self.stop_after, token, on)
        weights = quantize(torch.softmax(scores, -1))
        return Step(token, on, ids, weights, state=next_state(self.stop_after, state, token))
