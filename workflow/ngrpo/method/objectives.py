"""Policy objectives: the clipped surrogate per token (GRPO, Eq. 12-13) and per sequence (GSPO, arXiv 2507.18071).

| letter | meaning | shape |
|---|---|---|
| lp, old | log π_θ and log π_old of the written tokens, inputs replayed from the records | (B, T) |
| A | advantage, constant along a response | (B, T) |
| mask | 1 where a token belongs to the response | (B, T) |

Training takes GRPO's loss, its advantages and the k3 KL from verl, whose arithmetic they are; the functions here are
what verl 0.5.0 lacks (GSPO) and the oracle that tests hold verl's against.

Departures: none for GRPO. GSPO's log-ratio is capped at 10 before the exponential, as verl caps its own.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Aggregation = Literal["seq-mean-token-mean", "token-mean"]


class Loss(NamedTuple):
    """A loss to minimize, the share of tokens whose ratio was clipped, and the mean of old − lp."""

    loss: Tensor
    clipped: Tensor
    kl: Tensor


def group_advantages(reward: Tensor, group: int, epsilon: float = 1e-6) -> Tensor:
    """(r − mean) / (std + ε) within each group of `group` responses: reward (B,) → (B,). std with n−1."""
    r = reward.view(-1, group)
    return ((r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + epsilon)).view(-1)


def aggregate(values: Tensor, mask: Tensor, mode: Aggregation) -> Tensor:
    """One number from (B, T): the mean over sequences of their token means (Eq. 13), or the mean over all tokens."""
    if mode == "token-mean":
        return (values * mask).sum() / mask.sum()
    return ((values * mask).sum(-1) / mask.sum(-1)).mean()


def kl_k3(lp: Tensor, reference: Tensor) -> Tensor:
    """The k3 estimator of KL(π_θ ‖ π_ref) at each token, exp(d) − d − 1 with d = reference − lp: (B, T), ≥ 0."""
    d = (reference - lp).clamp(-20, 20)
    return (d.exp() - d - 1).clamp(-10, 10)


def _surrogate(
    ratio: Tensor, lp: Tensor, old: Tensor, A: Tensor, mask: Tensor, clip: tuple[float, float], dual: float | None,
    mode: Aggregation,
) -> Loss:  # fmt: skip
    plain, clipped = -A * ratio, -A * ratio.clamp(1 - clip[0], 1 + clip[1])
    worst = torch.maximum(plain, clipped)
    if dual is not None:
        worst = torch.where(A < 0, torch.minimum(worst, -A * dual), worst)
    return Loss(
        aggregate(worst, mask, mode),
        aggregate((clipped > plain).float(), mask, "token-mean"),
        aggregate(old - lp, mask, "token-mean"),
    )


def grpo_loss(
    lp: Tensor, old: Tensor, A: Tensor, mask: Tensor, *, low: float = 0.2, high: float = 0.2, dual: float = 3.0,
    aggregation: Aggregation = "seq-mean-token-mean",
) -> Loss:  # fmt: skip
    """GRPO (Eq. 12-13): each token's ratio, clipped to [1−low, 1+high]; where A < 0 the loss is at most −dual·A."""
    return _surrogate((lp - old).clamp(-20, 20).exp(), lp, old, A, mask, (low, high), dual, aggregation)


def gspo_loss(
    lp: Tensor, old: Tensor, A: Tensor, mask: Tensor, *, low: float = 3e-4, high: float = 4e-4,
    aggregation: Aggregation = "seq-mean-token-mean",
) -> Loss:  # fmt: skip
    """GSPO: the ratio of the whole sequence, s = exp(mean_t(lp − old)), clipped to [1−low, 1+high].

    Its gradient reaches each token through s_t = sg(s)·exp(lp − sg(lp)) (GSPO-token with constant advantages).
    """
    log_s = ((lp - old) * mask).sum(-1) / mask.sum(-1)
    ratio = (lp - lp.detach() + log_s.detach()[:, None]).clamp(max=10).exp()
    return _surrogate(ratio, lp, old, A, mask, (low, high), None, aggregation)
