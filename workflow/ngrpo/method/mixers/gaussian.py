"""Gaussian noise on fed embeddings (STHT, arXiv 2509.19170 §3–4), and what the released code makes of it.

Departure, and why: the noise is relative to the root mean square of all entries of E, computed when weights change, and
is drawn from a counter, so that a record holds a key and no floats.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, before_end, gate_open, next_state, only_token, quantize


@dataclass(frozen=True)
class GaussianMixer(Mixer):
    """STHT (arXiv 2509.19170 §3–4): every step feeds E[token] + σ·N(0, I), σ = factor × the RMS of E's entries.

    scope: the RMS of the whole matrix (the paper's), or of the one vector that the noise is added to ("row", the
    release's). replay: whether training feeds the same noise again (the paper), or draws it anew (the release). The
    release besides adds the noise to a mixture: k: of so many likeliest tokens, weighted by softmax(z̃ / temperature)
    over them; None: to E[token]. rho: probability that a step mixes. stop_after: a token from whose step on nothing is
    mixed.
    """

    factor: float = 0.33
    scope: str = "matrix"
    replay: bool = True
    k: int | None = None
    temperature: float = 1.0
    rho: float = 1.0
    stop_after: int | None = None

    kind: ClassVar[str] = "gaussian"
    needs_rms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, good, do in (
            ("factor", self.factor >= 0, "choose 0 or more"),
            ("k", self.k is None or self.k >= 1, "choose 1 or more, or leave it out"),
            ("temperature", self.temperature > 0, "choose a positive number"),
            ("rho", 0 <= self.rho <= 1, "choose a number from 0 to 1"),
        ):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer gaussian: {name}", do=do)
        self._check_choice("scope", ("matrix", "row"))

    @property
    def width(self) -> int:
        """The mixture's candidates, or 1."""
        return self.k or 1

    @property
    def replayed(self) -> bool:
        """Whether training feeds the same noise again."""
        return self.replay

    def gate(self, seed: Tensor, position: Tensor) -> Tensor:
        """With probability ρ; never where nothing would change."""
        on = torch.full_like(position, self.factor > 0 or self.k is not None, dtype=torch.bool)
        return on & (rng.uniform(seed, position, rng.GATE) < self.rho) if self.rho < 1 else on

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
        """Needs the row RMS of E. With factor 0 and no mixture nothing is mixed."""
        if rms is None:
            raise UserError("Gaussian noise without the RMS of the embedding", where="mixer gaussian")
        ids, weights = only_token(token)
        if self.k is not None:
            scores, ids = (z / self.temperature).topk(min(self.k, z.shape[-1]), -1)
            weights = quantize(torch.softmax(scores, -1))
        on = before_end(self.stop_after, token, gate_open(self.stop_after, state, self.gate(seed, position)))
        state = next_state(self.stop_after, state, token)
        if self.scope == "row" and self.k is not None:
            one = torch.full_like(token, self.factor, dtype=torch.float32)
            return Step(token, on, ids, weights, sigma=one, state=state, relative=True)
        scale = rms[token] if self.scope == "row" else rms.double().square().mean().sqrt().expand(token.shape)
        return Step(token, on, ids, weights, sigma=(self.factor * scale).float(), state=state)
