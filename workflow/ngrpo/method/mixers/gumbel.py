"""Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411).

| letter | meaning | shape |
|---|---|---|
| ε | Gumbel noise, clamped | (B, V) |
| g′ | log p + ε, of k candidates | (B, k) |
| y′ | softmax(g′ / τ_g), the weights of what is fed | (B, k) |
| log π(g′) | Σ_i −ε_i − e^(−ε_i), with ε_i = g′_i − log π_i of the policy in force: the noise's density | (B,) |
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, before_end, gate_open, next_state, quantize

LIKELY = -3.0
"""log p above which a candidate counts in SofT-GRPO's code."""


@dataclass(frozen=True)
class GumbelMixer(Mixer):
    """Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411): every step feeds the k likeliest after Gumbel noise.

    chosen_by: candidates are the top k of log p + clamp(Gumbel, low, high) ("noise": N-GRPO's comparison), or the k
    likeliest, whose p is renormalized and then gets noise ("probability": SofT-GRPO's paper and code; the noise's
    density is right for these alone, since they don't depend on it); weights softmax(·/temperature) of the noisy scores
    (paper), or softmax of the candidates' clean logits ("clean", the release). text: the first candidate is written,
    which the noise has drawn (paper), or the sampled token ("sampled", the release: noise selects what is mixed and
    nothing else). log_prob: of a mixed step, its written token's ("token", as in N-GRPO's comparison), the density of
    its noisy scores ("noise", SofT-GRPO's paper), or as SofT-GRPO's code has that ("release"): p renormalized over the
    candidates, ε clamped again, averaged over candidates with log p above LIKELY. stop_after: a token from whose step
    on nothing is mixed; the sampled token is written from then on.
    """

    k: int = 5
    temperature: float = 0.1
    low: float = -1.5
    high: float = 3.0
    weights: str = "noisy"
    chosen_by: str = "noise"
    text: str = "candidate"
    log_prob: str = "token"
    stop_after: int | None = None

    kind: ClassVar[str] = "gumbel"

    def __post_init__(self) -> None:
        for name, good in (("k", self.k >= 1), ("temperature", self.temperature > 0), ("high", self.high > self.low)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer gumbel: {name}")
        self._check_choice("weights", ("noisy", "clean"))
        self._check_choice("chosen_by", ("noise", "probability"))
        self._check_choice("text", ("candidate", "sampled"))
        self._check_choice("log_prob", ("token", "noise", "release"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

    @property
    def writes_first_candidate(self) -> bool:
        """The one that the noise has drawn, unless the sampled token is written."""
        return self.text == "candidate"

    @property
    def own_likelihood(self) -> bool:
        """The density of the noisy scores, where that is asked for."""
        return self.log_prob != "token"

    def likelihood(self, log_p: Tensor, scores: Tensor | None = None) -> Tensor:
        """log π(g′): (M, k), (M, k) → (M,)."""
        if scores is None:
            raise UserError("records without their noisy scores", where=f"mixer gumbel: log_prob {self.log_prob}")
        if self.log_prob == "noise":
            return _density(scores - self._of_candidates(log_p)).sum(-1)
        log_p = (torch.softmax(log_p, -1) + 1e-6).log()
        likely = (log_p > LIKELY).float()  # with k ≤ 20 never none: the largest of k has 1/k or more
        return (_density((scores - log_p).clamp(self.low, self.high)) * likely).sum(-1) / likely.sum(-1).clamp(min=1)

    def _of_candidates(self, log_p: Tensor) -> Tensor:
        """log p of candidates as they get noise: (…, k), renormalized where they are the likeliest."""
        return torch.log_softmax(log_p, -1) if self.chosen_by == "probability" else log_p

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
        log_p = torch.log_softmax(z, -1)
        if self.chosen_by == "noise":
            top, ids = (log_p + noise).topk(min(self.k, z.shape[-1]), -1)
        else:
            first, ids = log_p.topk(min(self.k, z.shape[-1]), -1)
            top, order = (self._of_candidates(first) + noise.gather(-1, ids)).sort(dim=-1, descending=True, stable=True)
            ids = ids.gather(-1, order)
        own = self.likelihood(log_p.gather(-1, ids), top) if self.own_likelihood else None
        scores = top / self.temperature if self.weights == "noisy" else z.gather(-1, ids)
        on = gate_open(self.stop_after, state, self.gate(seed, position))
        token = torch.where(on, ids[:, 0], token) if self.text == "candidate" else token
        on = before_end(self.stop_after, token, on)
        weights = quantize(torch.softmax(scores, -1))
        after = next_state(self.stop_after, state, token)
        return Step(token, on, ids, weights, state=after, likelihood=own, scores=None if own is None else top)


def _density(noise: Tensor) -> Tensor:
    """Log-density of standard Gumbel noise."""
    return -noise - torch.exp(-noise)
