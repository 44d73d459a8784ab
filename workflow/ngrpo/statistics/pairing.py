"""What two evaluations that share sample seeds have in common, estimated from their samples of the same number.

Sharing random numbers makes counts of correct samples alike, and Pass@k, which isn't linear in a count, less so than
Mean@n. So the correlation is that of the estimator's own values: each problem's pairs of samples are drawn again with
replacement (the bootstrap, Efron 1979, within problems), both counts are taken from the same pairs, and covariance and
variances of the estimator are added up over problems.
"""

import numpy as np

RESAMPLES = 200


def pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many pairs of samples are right under both, under the first alone, the second alone, and neither; (N, 4).

    a, b: (N, m) of 0 and 1, the samples of the same number in the same place.
    """
    one, other = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    return np.stack(
        [(one & other).sum(-1), (one & ~other).sum(-1), (~one & other).sum(-1), (~one & ~other).sum(-1)], -1
    )


def correlation(shared: np.ndarray, g_a: np.ndarray, g_b: np.ndarray) -> float:
    """The correlation of two benchmark values over samples, problems fixed; 0 where no problem has both right and wrong
    samples of both.

    shared: (N, 4) as `pairs` makes them; g_a, g_b: the estimator's values at c = 0 … n, n no less than the pairs.
    Samples beyond the pairs are independent.
    """
    turned = shared[:, [0, 2, 1, 3]]  # so that which system comes first makes no difference
    return (_correlation(shared, g_a, g_b) + _correlation(turned, g_b, g_a)) / 2


def _correlation(shared: np.ndarray, g_a: np.ndarray, g_b: np.ndarray) -> float:
    m = int(shared[0].sum())
    rng = np.random.default_rng(m)
    chances = shared / m
    drawn = rng.multinomial(m, chances, size=(RESAMPLES, len(shared)))
    a, b = drawn[..., 0] + drawn[..., 1], drawn[..., 0] + drawn[..., 2]
    a = a + rng.binomial(len(g_a) - 1 - m, np.minimum(chances[:, 0] + chances[:, 1], 1.0), a.shape)
    b = b + rng.binomial(len(g_b) - 1 - m, np.minimum(chances[:, 0] + chances[:, 2], 1.0), b.shape)
    left, right = g_a[a] - g_a[a].mean(0), g_b[b] - g_b[b].mean(0)
    scale = np.sqrt((left**2).sum() * (right**2).sum())
    return float((left * right).sum() / scale) if scale > 0 else 0.0
