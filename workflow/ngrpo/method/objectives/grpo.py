"""GRPO (arXiv 2606.10768, Eq. 12-13): a clipped ratio for each token. The oracle of verl's own, which training uses.

Departures from Eq. 13, all of them verl's:
1. Dual clip: where A < 0 the loss is at most 3·|A| (`dual`), however large the ratio.
2. The log-ratio is clamped to ±20 before the exponential.
"""

from torch import Tensor

from ngrpo.method.objectives.surrogate import Aggregation, Loss, clipped_surrogate


def loss(
    lp: Tensor,
    old: Tensor,
    A: Tensor,
    mask: Tensor,
    *,
    clip: tuple[float, float],
    aggregation: Aggregation,
    dual: float | None = 3.0,
) -> Loss:
    """Each token's ratio, clipped to [1 − clip[0], 1 + clip[1]]. All (B, T) → Loss."""
    ratio = (lp - old).clamp(-20, 20).exp()
    return clipped_surrogate(ratio, lp, old, A, mask, clip=clip, aggregation=aggregation, dual=dual)
