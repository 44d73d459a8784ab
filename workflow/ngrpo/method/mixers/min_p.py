"""Min-p sampling (arXiv 2407.01082): no token is drawn that is much less likely than the likeliest.

A strategy of single tokens beside those that mix (arXiv 2606.10768, §2.1): it writes another draw, and feeds its own
embedding.

Departures: the floor is relative to the likeliest token of softmax(z̃), so after the temperature, as in transformers.
Log-probs stay those of the whole distribution, as with top-p (`ngrpo.engines.contract`): where it explores in training,
rollout and policy differ by what was cut off.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers.interface import Mixer, Step, only_token
from ngrpo.method.sampling import draw, restrict


@dataclass(frozen=True)
class MinPMixer(Mixer):
    """Every step writes a draw from the tokens with p ≥ min_p · max p, and feeds its embedding.

    min_p: in [0, 1]; 0 is stock sampling. top_p: of the nucleus that the draw comes from, too; it takes the place of
    the decoding's own.
    """

    min_p: float
    top_p: float = 1.0

    kind: ClassVar[str] = "min-p"
    mixes: ClassVar[bool] = False
    redraws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, good in (("min_p", 0 <= self.min_p <= 1), ("top_p", 0 < self.top_p <= 1)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer min-p: {name}")

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
        """The draw has the same uniform number as the engine's own, whose place it takes."""
        p = torch.softmax(z, -1)
        possible = p * (p >= self.min_p * p.amax(-1, keepdim=True))
        if self.top_p < 1:
            possible = possible * (restrict(p, torch.full_like(p[:, 0], self.top_p), torch.zeros_like(token)) > 0)
        token = draw(possible, rng.uniform(seed, position, rng.TOKEN))
        return Step(token, torch.zeros_like(token, dtype=torch.bool), *only_token(token))
