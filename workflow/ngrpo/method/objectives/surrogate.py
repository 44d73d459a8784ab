"""What objectives share: advantages, the clipped surrogate, its aggregation, the KL estimator; letters as there.

Departures from the paper, all of them verl's:
1. Advantages divide by std + 1e-6, with the std of n−1 (Eq. 12: std).
2. The k3 estimator's log-ratio is clamped to ±20, its value to ±10.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Aggregation = Literal["seq-mean-token-mean", "token-mean", "seq-mean-token-sum-norm"]


class Loss(NamedTuple):
    """A loss to minimize, the share of tokens whose ratio was clipped, and the mean of old − lp; three scalars."""

    loss: Tensor
    clipped: Tensor
    kl: Tensor


def group_advantages(reward: Tensor, group: int, epsilon: float = 1e-6, by_std: bool = True) -> Tensor:
    """(r − mean) / (std + ε) within each group of `group` responses: reward (B,) → (B,). std with n−1.

    by_std: False leaves the division out (Dr. GRPO).
    """
    r = reward.view(-1, group)
    centered = r - r.mean(1, keepdim=True)
    return (centered / (r.std(1, keepdim=True) + epsilon) if by_std else centered).view(-1)


def without_equal_groups(A: Tensor, mask: Tensor, reward: Tensor, group: Tensor, mode: Aggregation) -> Tensor:
    """Advantages (B, T) that make averages over a whole batch those over its groups with more than one reward.

    reward (B,); group (B,) int64, which each response belongs to. Groups of one reward get 0; the others grow by what
    share of the average's weight (tokens, or sequences) is left (DAPO, arXiv 2503.14476, Eq. 11). All 0 where none is.
    """
    zeros = reward.new_zeros(int(group.max()) + 1)
    least, most = (zeros.scatter_reduce(0, group, reward, end, include_self=False) for end in ("amin", "amax"))
    unequal = (least != most)[group][:, None]
    weight = mask.float() if mode == "token-mean" else torch.ones_like(A[:, :1])
    left = (weight * unequal).sum()
    return torch.where(unequal, A * (weight.sum() / left.clamp_min(1)), 0.0)


def aggregate(values: Tensor, mask: Tensor, mode: Aggregation) -> Tensor:
    """One number from (B, T): the mean over sequences of their token means (Eq. 13), the mean over all tokens, or the
    mean over sequences of their token sums / T (Dr. GRPO, arXiv 2503.20783; T is the longest possible length)."""
    if mode == "token-mean":
        return (values * mask).sum() / mask.sum()
    if mode == "seq-mean-token-sum-norm":
        return (values * mask).sum(-1).mean() / mask.shape[-1]
    return ((values * mask).sum(-1) / mask.sum(-1)).mean()


def kl_k3(lp: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimator of KL(π_θ ‖ π_ref) at each token, exp(d) − d − 1 with d = reference − lp: (B, T), ≥ 0."""
    d = (reference - lp).clamp(-20, 20)
    return (d.exp() - d - 1).clamp(-10, 10)


def truncated_ratio(old: Tensor, rollout: Tensor, cap: float) -> Tensor:
    """min(π_old / π_rollout, cap) of each token: weights of truncated importance sampling, (B, T), constants.

    old: the trainer's log-probs before the update; rollout: those of the engine that drew the tokens. A token's loss
    scales with its advantage, so the weights multiply advantages. The log-ratio is clamped to ±20.
    """
    return (old - rollout).clamp(-20, 20).exp().clamp(max=cap).detach()


def clipped_surrogate(
    ratio: Tensor,
    lp: Tensor,
    old: Tensor,
    A: Tensor,
    mask: Tensor,
    *,
    clip: tuple[float, float],
    aggregation: Aggregation,
    dual: float | None = None,
) -> Loss:
    """−min(ratio·A, clipped ratio·A) at each token, aggregated (Eq. 13); dual: where A < 0 it is at most −dual·A."""
    plain, clipped = -A * ratio, -A * ratio.clamp(1 - clip[0], 1 + clip[1])
    worst = torch.maximum(plain, clipped)
    if dual is not None:
        worst = torch.where(A < 0, torch.minimum(worst, -A * dual), worst)
    return Loss(
        aggregate(worst, mask, aggregation),
        aggregate((clipped > plain).float(), mask, "token-mean"),
        aggregate(old - lp, mask, "token-mean"),
    )
