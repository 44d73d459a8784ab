"""Gaussian noise on every fed embedding (STHT, arXiv 2509.19170 §3–4).

Departure, and why: the noise is relative to the root mean square of all entries of E, computed when weights change, and
is drawn from a counter, so that a record holds a key and no floats.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.mixers.base import Mixer, Step, only_token


@dataclass(frozen=True)
class GaussianMixer(Mixer):
    """STHT (arXiv 2509.19170 §3–4): every step feeds E[token] + σ·N(0, I), σ = factor × the RMS of E's entries.

    scope: the RMS of the whole matrix (the paper's), or of that one row ("row", the release's). replay: whether the
    record carries the noise's key (the release draws anew in training).
    """

    factor: float = 0.33
    scope: str = "matrix"
    replay: bool = True

    kind: ClassVar[str] = "gaussian"
    needs_rms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise UserError(f"factor is {self.factor}", where="mixer gaussian: factor", do="choose 0 or more")
        self._check_choice("scope", ("matrix", "row"))

    @property
    def replayed(self) -> bool:
        """Whether the record carries the noise's key."""
        return self.replay

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
        """Needs the row RMS of E. With factor 0 nothing is mixed."""
        if rms is None:
            raise UserError("Gaussian noise without the RMS of the embedding", where="mixer gaussian")
        scale = rms[token] if self.scope == "row" else rms.double().square().mean().sqrt().expand(token.shape)
        on = torch.full_like(token, self.factor > 0, dtype=torch.bool)
        return Step(token, on, *only_token(token), sigma=(self.factor * scale).float())
