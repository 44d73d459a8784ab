"""Dr. GRPO (arXiv 2503.20783): GRPO without the two divisions that favor some responses over others.

A response's loss is the sum over its tokens divided by the longest possible length, not by its own
(`seq-mean-token-sum-norm`, the kind's own aggregation of the policy term); advantages aren't divided by the group's
standard deviation (`objective.norm_adv_by_std`). Its authors use β = 0: that is `objective.kl_coefficient`.

Departure: the log-ratio's clamp, which is GRPO's.
"""

from torch import Tensor

from ngrpo.method.objectives import grpo
from ngrpo.method.objectives.surrogate import Aggregation, Loss


def loss(
    lp: Tensor, old: Tensor, A: Tensor, mask: Tensor, *, clip: tuple[float, float], aggregation: Aggregation
) -> Loss:
    """GRPO's clipped ratio of each token, without its dual clip. All (B, T) → Loss."""
    return grpo.loss(lp, old, A, mask, clip=clip, aggregation=aggregation, dual=None)
