"""N-GRPO's own mixing (arXiv 2606.10768, Eq. 6–11)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, before_end, gate_open, largest, next_state, quantize

SHUFFLE = 1_000_003
"""A prime that no vocabulary's size is a multiple of: v → SHUFFLE · v + 1 modulo that size is one to one."""


@dataclass(frozen=True)
class NeighborMixer(Mixer):
    """N-GRPO's mixing (Eq. 6–11): with probability ρ the anchor is written and the neighbors' mixture is fed.

    rho: ρ in [0, 1]; 1 is the ablation "w/o rate". k: candidates, the anchor included, ≥ 1. metric: of the table.
    weights: softmax over C of z̃ ("logits", Eq. 9) or of the probabilities ("probabilities", the release). text: a mixed
    step writes the anchor (paper) or the sampled token (release). fed: the neighbors' embeddings ("neighbors"), or with
    the same weights those of other tokens ("random", a control: see `shuffled`). stop_after: a token from whose step on
    nothing is mixed.
    """

    rho: float
    k: int = 3
    metric: str = "cosine"
    weights: str = "logits"
    text: str = "anchor"
    fed: str = "neighbors"
    stop_after: int | None = None

    kind: ClassVar[str] = "neighbors"
    needs_table: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho is {self.rho}", where="mixer neighbors: rho", do="choose a number from 0 to 1")
        if self.k < 1:
            raise UserError(f"k is {self.k}", where="mixer neighbors: k", do="choose 1 (anchor only) or more")
        self._check_choice("weights", ("logits", "probabilities"))
        self._check_choice("text", ("anchor", "sampled"))
        self._check_choice("fed", ("neighbors", "random"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

    @property
    def deterministic_text(self) -> bool:
        """ρ = 1 without an end: every step writes the anchor and feeds its mixture, and no step samples (Eq. 6–11)."""
        return self.rho == 1 and self.text == "anchor" and self.stop_after is None

    @property
    def writes_first_candidate(self) -> bool:
        """The anchor, unless the sampled token is written."""
        return self.text == "anchor"

    def gate(self, seed: Tensor, position: Tensor) -> Tensor:
        """With probability ρ (Eq. 11)."""
        return rng.uniform(seed, position, rng.GATE) < self.rho

    def candidates(self, anchor: Tensor, table: Tensor) -> Tensor:
        """The anchor's neighbors, or what is fed in their place."""
        return self._fed(table[anchor].long(), len(table))

    def _fed(self, nearest: Tensor, n: int) -> Tensor:
        return nearest if self.fed == "neighbors" else shuffled(nearest, n)

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
        """Needs the neighbor table (V, k), anchor first."""
        if table is None:
            raise UserError("neighbor mixing without a neighbor table", where="mixer neighbors", do="name a table")
        anchor = largest(z)
        nearest = table[anchor].long()
        scores = z if self.weights == "logits" else torch.softmax(z, -1)
        alpha = torch.softmax(scores.gather(-1, nearest), -1)
        ids = self._fed(nearest, len(table))
        on = gate_open(self.stop_after, state, self.gate(seed, position))
        token = torch.where(on, anchor, token) if self.text == "anchor" else token
        on = before_end(self.stop_after, token, on)
        return Step(token, on, ids, quantize(alpha, descending=True), state=next_state(self.stop_after, state, token))


def shuffled(ids: Tensor, n: int) -> Tensor:
    """Candidates (B, k), anchor first, in [0, n) → the anchor and, in place of each neighbor, the token to which a
    fixed shuffle of the vocabulary leads from it, or the one after where that is the anchor.

    Tokens drawn at random as candidates would do for no control: in a trained vocabulary their logits give them no
    weight, and what is fed is the anchor's embedding. These have the weights of the nearest.
    """
    anchor = ids[:, :1]
    other = (ids[:, 1:] * SHUFFLE + 1) % n
    return torch.cat([anchor, torch.where(other == anchor, (other + 1) % n, other)], -1)
