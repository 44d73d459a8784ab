"""Input mixers: which token is written down, and which vector is fed to the next step (METHOD: one algebra).

| letter | meaning | shape |
|---|---|---|
| z̃ | scaled logits (Eq. 2) | (B, V) |
| v* | anchor, argmax z̃ (Eq. 6) | (B,) |
| C | the anchor and its k−1 nearest neighbours, anchor first (Eq. 7–8) | (B, k) |
| α | softmax of z̃ over C (Eq. 9) | (B, k) |
| ẽ | Σ_c α(c) E[c] (Eq. 10) | (B, d) |
| m | mixing mask, Bernoulli(ρ) per sequence and step (Eq. 11) | (B,) |

A mixer turns (z̃, sampled token, seed, position) into a `Step`. Rollout and decoding use the same object, in every
engine; `blend` computes ẽ, in the engine and in the trainer, so that replay is the same arithmetic.

Departures, and why:
1. α is rounded to multiples of 2⁻¹⁶ before it is used, the anchor taking the remainder: the weights still sum to
   exactly 1, what is recorded is exactly what was fed, and a record needs two bytes a neighbour. The largest change
   of a weight is 2⁻¹⁷·k, far below bfloat16's 2⁻⁹.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ngrpo.errors import UserError, unknown_name
from ngrpo.method import rng

UNIT = 1 << 16  # weights are multiples of 1/UNIT


class Step(NamedTuple):
    """One step of a batch: what is written, and what is fed next."""

    token: Tensor  # (B,) int64, the token written down
    on: Tensor  # (B,) bool, where a mixture is fed; elsewhere E[token]
    ids: Tensor  # (B, k) int64, the candidates, anchor first
    units: Tensor  # (B, k) int32, their weights in units of 1/UNIT; every row sums to UNIT


class Mixer(Protocol):
    """What every input mixer offers."""

    kind: ClassVar[str]
    width: int  # k, the most candidates of a step

    def step(self, z: Tensor, token: Tensor, seed: Tensor, position: Tensor, table: Tensor | None) -> Step:
        """z (B, V) scaled logits; token (B,) sampled; seed, position (B,) int64; table (V, k) neighbours or None.

        position is the index, in prompt and response together, of the token that is being written.
        """
        ...


def quantise(alpha: Tensor) -> Tensor:
    """Weights (B, k) that sum to 1 → int32 units that sum to UNIT; the first column takes the rounding's remainder."""
    units = (alpha * UNIT).round().to(torch.int32)
    units[:, 0] = UNIT - units[:, 1:].sum(-1, dtype=torch.int32)
    return units


def blend(rows: Tensor, units: Tensor) -> Tensor:
    """ẽ = Σ α(c) E[c] (Eq. 10): rows (M, k, d) of E, units (M, k) → (M, d) in rows' dtype, summed in float32.

    Differentiable with respect to rows; the weights are constants (paper §3.3).
    """
    alpha = units.to(torch.float32) * (1.0 / UNIT)
    return (alpha.unsqueeze(-1) * rows.float()).sum(-2).to(rows.dtype)


@dataclass(frozen=True)
class NoMixer:
    """Token sampled, E[token] fed: stock decoding."""

    kind: ClassVar[str] = "none"
    width: ClassVar[int] = 1

    def step(self, z: Tensor, token: Tensor, seed: Tensor, position: Tensor, table: Tensor | None) -> Step:
        """Never mixes."""
        on = torch.zeros_like(token, dtype=torch.bool)
        return Step(token, on, token[:, None], torch.full_like(token, UNIT, dtype=torch.int32)[:, None])


@dataclass(frozen=True)
class NeighbourMixer:
    """N-GRPO's mixing (Eq. 6–11): with probability ρ the anchor is written and the neighbours' mixture is fed.

    rho: ρ in [0, 1]; 1 is the ablation "w/o rate". k: candidates, the anchor included, ≥ 1. metric: of the table.
    """

    rho: float
    k: int = 3
    metric: str = "cosine"

    kind: ClassVar[str] = "neighbours"

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho is {self.rho}", where="mixer neighbours: rho", do="choose a number from 0 to 1")
        if self.k < 1:
            raise UserError(f"k is {self.k}", where="mixer neighbours: k", do="choose 1 (anchor only) or more")

    @property
    def width(self) -> int:
        """k."""
        return self.k

    def step(self, z: Tensor, token: Tensor, seed: Tensor, position: Tensor, table: Tensor | None) -> Step:
        """Needs the neighbour table (V, k), anchor first."""
        if table is None:
            raise UserError("neighbour mixing without a neighbour table", where="mixer neighbours", do="name a table")
        anchor = z.argmax(-1)
        ids = table[anchor].long()
        alpha = torch.softmax(z.gather(-1, ids), -1)
        on = rng.uniform(seed, position, rng.GATE) < self.rho
        return Step(torch.where(on, anchor, token), on, ids, quantise(alpha))


_KINDS: dict[str, Callable[..., Mixer]] = {m.kind: m for m in (NoMixer, NeighbourMixer)}


def mixer_from(settings: Mapping[str, Any]) -> Mixer:
    """The mixer that {kind, …its settings} describes. Raises UserError for an unknown kind or setting."""
    rest = dict(settings)
    kind = rest.pop("kind", "none")
    if kind not in _KINDS:
        raise unknown_name("input mixer", kind, _KINDS, where="mixer: kind")
    try:
        return _KINDS[kind](**rest)
    except TypeError as e:
        raise UserError(f"these settings don't fit: {e}", where=f"mixer {kind}") from None
