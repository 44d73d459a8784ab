"""Policy objectives, one file a kind: `objective.kind: grpo` is grpo.py.

A new kind is a file here, and its clip range in `ngrpo.study.objective`.

Each file defines `loss(lp, old, A, mask, *, clip, aggregation) -> Loss`; one that can have a dual clip (`DUAL_CLIPS`
there) takes `dual`, too:

| letter | meaning | shape |
|---|---|---|
| lp, old | log π_θ and log π_old of the written tokens, inputs replayed from the records | (B, T) |
| A | advantage, constant along a response | (B, T) |
| mask | 1 where a token belongs to the response | (B, T) |
| clip | how far below and above 1 the ratio may go before it is clipped | two floats |
| aggregation | how (B, T) becomes one number: `surrogate.aggregate` | |

Training takes GRPO's loss, its advantages and the k3 KL from verl, whose arithmetic they are; every other kind is
registered with verl (`ngrpo.training.verl.losses`). grpo.py is the oracle that tests hold verl's against.
"""

import pkgutil
from importlib import import_module
from typing import Protocol

from torch import Tensor

from ngrpo.errors import unknown_name
from ngrpo.method.objectives.surrogate import Aggregation, Loss

_NO_KINDS = ("surrogate",)  # what the kinds share


class ObjectiveLoss(Protocol):
    """A kind's loss."""

    def __call__(
        self, lp: Tensor, old: Tensor, A: Tensor, mask: Tensor, *, clip: tuple[float, float], aggregation: Aggregation
    ) -> Loss:
        """The loss of a batch."""


def kinds() -> list[str]:
    """Every kind that has a file here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_KINDS)


def loss_of(kind: str) -> ObjectiveLoss:
    """A kind's loss. Raises UserError for a kind that doesn't exist."""
    if kind not in kinds():
        raise unknown_name("objective", kind, kinds(), where="objective.kind")
    loss: ObjectiveLoss = import_module(f"{__name__}.{kind}").loss
    return loss
