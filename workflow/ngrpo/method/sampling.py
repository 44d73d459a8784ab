"""Which token is written: temperature, top-k, top-p, and one uniform number a token (inverse CDF).

Engines draw through this module, so that a sample depends on its seed and its text alone, not on its neighbors in
the batch (a shared generator, as in sglang 0.4.6's torch sampler, can't promise that).
"""

import torch
from torch import Tensor


def scale(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """z̃ = z / τ in float32 (Eq. 2): logits (B, V); temperature a positive number or (B, 1). A new tensor."""
    return logits.float() / temperature


def restrict(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Zero what lies outside the nucleus or the k likeliest; not renormalized.

    p (B, V) probabilities; top_p (B,) in (0, 1]; top_k (B,) integers, ≤ 0 for no limit. A token is in the nucleus if
    the tokens likelier than it hold less than top_p (so the likeliest always is); ties go to the smaller id.
    """
    if bool((top_p >= 1).all()) and bool((top_k <= 0).all()):
        return p
    ordered, index = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(p.shape[-1], device=p.device)
    limit = torch.where(top_k > 0, top_k.to(rank.dtype), p.shape[-1])
    keep = (before < top_p[:, None]) & (rank < limit[:, None])
    return torch.zeros_like(p).scatter(-1, index, ordered * keep)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """The token at quantile u of each row: p (B, V) non-negative with positive sums, u (B,) in [0, 1) → (B,) int64."""
    total = p.cumsum(-1)
    target = u.to(total.dtype)[:, None] * total[:, -1:]
    token = torch.searchsorted(total, target, right=True)[:, 0]
    # rounding in the running sum may point past the last token with any probability
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).to(torch.int8).argmax(-1)
    return torch.minimum(token, last)


def log_prob(z: Tensor, token: Tensor) -> Tensor:
    """log softmax(z̃)[token]: z (B, V), token (B,) → (B,). Of the whole distribution, whatever top-p and top-k are."""
    return torch.log_softmax(z, -1).gather(-1, token[:, None].long())[:, 0]
