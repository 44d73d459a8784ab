"""GSPO (arXiv 2507.18071): a clipped ratio for each sequence.

Departures: the log-ratio is capped at 10 before the exponential, as verl caps its own. A dual clip, as the release has
it, only where it is asked for.
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
    dual: float | None = None,
) -> Loss:
    """The ratio of the whole sequence, s = exp(mean_t(lp − old)), clipped to [1 − clip[0], 1 + clip[1]].

    Its gradient reaches each token through s_t = sg(s)·exp(lp − sg(lp)) (GSPO-token with constant advantages).
    All (B, T) → Loss.
    """
    log_s = ((lp - old) * mask).sum(-1) / mask.sum(-1)
    ratio = (lp - lp.detach() + log_s.detach()[:, None]).clamp(max=10).exp()
    return clipped_surrogate(ratio, lp, old, A, mask, clip=clip, aggregation=aggregation, dual=dual)
