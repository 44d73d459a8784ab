"""No mixing: stock decoding."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.method.mixers.base import Mixer, Step, only_token


@dataclass(frozen=True)
class NoMixer(Mixer):
    """Token sampled, E[token] fed: stock decoding."""

    kind: ClassVar[str] = "none"
    mixes: ClassVar[bool] = False

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
        """Never mixes."""
        return Step(token, torch.zeros_like(token, dtype=torch.bool), *only_token(token))
