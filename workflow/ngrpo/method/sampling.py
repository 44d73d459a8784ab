"""Which token is written: temperature, top-k, top-p, and one uniform number a token (inverse CDF).

Engines draw through this module, so that a sample depends on its seed and its text alone, not on its neighbors in
the batch (a shared generator, as in sglang 0.4.6's torch sampler, can't promise that). Nothing here reads a value on
the host, which would wait for a GPU at every step.
"""

import torch
from torch import Tensor


def scale(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """z̃ = z / τ in float32 (Eq. 2): logits (B, V); temperature a positive number or (B, 1). A new tensor."""
    return logits.float() / temperature


def restrict(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Zero what lies outside the nucleus or the k likeliest; not renormalized.

    p (B, V) float32 probabilities; top_p (B,) in (0, 1], 1 for no limit; top_k (B,) integers, ≤ 0 for no limit. A token
    is in the nucleus if the tokens likelier than it hold less than top_p (so the likeliest always is); ties go to the
    smaller id. It isn't free where no row has a limit: engines know that from their requests, and then don't call it.
    A CPU sorts. A GPU doesn't: its kernel finds the least probability in the nucleus by bisection, with the same sums
    and the same rounding, and so the same tokens, but where a token misses top_p by less than float32 resolves (2⁻²³).
    """
    return torch.ops.ngrpo.restrict(p, top_p, top_k)


def _by_sorting(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    ordered, index = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(p.shape[-1], device=p.device)
    limit = top_k.to(rank.dtype).masked_fill(top_k <= 0, p.shape[-1])
    most = top_p.masked_fill(top_p >= 1, torch.inf)  # before may round to 1
    keep = (before < most[:, None]) & (rank < limit[:, None])
    return torch.zeros_like(p).scatter(-1, index, ordered * keep)


def _on_gpu(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    from ngrpo.method import fused

    return fused.restrict(p, top_p, top_k)


def _shape(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    return torch.empty_like(p)


_operators = torch.library.Library("ngrpo", "FRAGMENT")
_operators.define("restrict(Tensor p, Tensor top_p, Tensor top_k) -> Tensor")
for _device, _form in (("CPU", _by_sorting), ("CUDA", _on_gpu), ("Meta", _shape)):
    _operators.impl("restrict", _form, _device)


def _running_sum(p: Tensor) -> Tensor:
    """p (B, V) summed along its rows in float64, each sum rounded to float32: what a CPU does with float32 anyway."""
    return p.cumsum(-1) if p.device.type == "cpu" else p.cumsum(-1, dtype=torch.float64).to(p.dtype)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """The token at quantile u of each row: p (B, V) non-negative with positive sums, u (B,) in [0, 1) → (B,) int64."""
    return draws(p, u[:, None])[:, 0]


def draws(p: Tensor, u: Tensor) -> Tensor:
    """The tokens at n quantiles of each row, independent where u is: p (B, V) as `draw`'s, u (B, n) → (B, n) int64."""
    total = _running_sum(p)
    target = u.to(total.dtype) * total[:, -1:]
    token = torch.searchsorted(total, target, right=True)
    # rounding in the running sum may point past the last token with any probability
    last = p.shape[-1] - 1 - (p.flip(-1) > 0).to(torch.int8).argmax(-1)
    return torch.minimum(token, last[:, None])


def log_prob(z: Tensor, token: Tensor) -> Tensor:
    """log softmax(z̃)[token]: z (B, V), token (B,) → (B,). Of the whole distribution, whatever top-p and top-k are."""
    return torch.log_softmax(z, -1).gather(-1, token[:, None].long())[:, 0]
