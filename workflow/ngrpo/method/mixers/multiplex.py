"""Multiplex Thinking (arXiv 2601.08808): K tokens are drawn independently at each thinking step, and merged.

| letter | meaning | shape |
|---|---|---|
| k₁ … k_K | draws from softmax(z̃), the written token first | (B, K) |
| s | their averaged one-hot vectors, Σ_j onehot(k_j) / K | (B, V) |
| c | what is fed: Eᵀ(s ⊙ w), w uniform or by probability | (B, d) |
| log π(c) | Σ_j log π(k_j): the draws are independent | (B,) |

Departures, and why:
1. The paper's draws have no order. Here the first is written, as in the release, and it is the token that the engine
   has drawn: so top-p, top-k and min-p of the decoding hold for it, and `top_p` for the others.
2. Weights by probability, the paper's default, are renormalized over the K draws, as in the release. As §3.1 prints
   them they are renormalized over the distinct tokens and then counted, so that K equal draws would feed K times an
   embedding; its text says that they are a discrete token then, as here.
3. The step that writes `stop_after` feeds that token's own embedding, and only that token is in its likelihood; so is
   the last token of a response, which feeds nothing. (Figure 1: thinking ends when one of the draws is that token; the
   release looks at the first.)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, before_end, gate_open, next_state, quantize
from ngrpo.method.sampling import draws, restrict


@dataclass(frozen=True)
class MultiplexMixer(Mixer):
    """Every thinking step feeds the average of k tokens that are drawn independently from the policy.

    k: K, the sampled token included, ≥ 1; 1 is stock sampling. weights: of the draws, equal ("uniform") or their
    probabilities, renormalized over the draws ("probabilities"). top_p: of the draws beside the sampled token.
    stop_after: a token from whose step on nothing is mixed.
    """

    k: int = 3
    weights: str = "uniform"
    top_p: float = 1.0
    stop_after: int | None = None

    kind: ClassVar[str] = "multiplex"

    def __post_init__(self) -> None:
        for name, good in (("k", self.k >= 1), ("top_p", 0 < self.top_p <= 1)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer multiplex: {name}")
        self._check_choice("weights", ("uniform", "probabilities"))

    @property
    def width(self) -> int:
        """K."""
        return self.k

    @property
    def writes_first_candidate(self) -> bool:
        """The sampled token, which is the first draw."""
        return True

    @property
    def own_likelihood(self) -> bool:
        """The draws', of which the written token is one."""
        return True

    def likelihood(self, log_p: Tensor, scores: Tensor | None = None) -> Tensor:
        """Σ_j log π(k_j): (M, K) → (M,)."""
        return log_p.sum(-1)

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
        """Needs neither table nor rms."""
        log_p = torch.log_softmax(z, -1)
        p = log_p.exp()
        if self.top_p < 1:
            p = restrict(p, torch.full_like(p[:, 0], self.top_p), torch.zeros_like(token))
        others = draws(p, rng.uniforms(seed, position, rng.DRAWS, self.k - 1))
        ids = torch.cat([token[:, None].long(), others], -1)
        drawn = log_p.gather(-1, ids)
        alpha = torch.full_like(drawn, 1 / self.k) if self.weights == "uniform" else torch.softmax(drawn, -1)
        on = before_end(self.stop_after, token, gate_open(self.stop_after, state, self.gate(seed, position)))
        state = next_state(self.stop_after, state, token)
        return Step(token, on, ids, quantize(alpha), state=state, likelihood=self.likelihood(drawn))
