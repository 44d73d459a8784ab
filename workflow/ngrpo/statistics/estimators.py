"""Mean@n and Pass@k as functions of one number: how many of a problem's n samples are correct.

| symbol | meaning |
|---|---|
| n, c | samples of a problem, and how many of them are correct (0 ≤ c ≤ n) |
| k | samples that a reader may try (1 ≤ k ≤ n) |
| p | a problem's true chance that one sample is correct |

An estimator is the vector g of its values at c = 0 … n; a benchmark's value is the mean of g[c] over its problems.
Mean@n is the unbiased Pass@1. Two estimators of Pass@k (docs/method.md):
unbiased: g = 1 − C(n−c, k)/C(n, k) (paper Eq. 15). bootstrap: k of the n with replacement, 1000 times (the release);
its expectation is 1 − (1 − c/n)^k, below the unbiased one: at n = k = 32 a problem with one right counts 0.638, not 1.
"""

import numpy as np
from scipy import special

from ngrpo.errors import UserError

BOOTSTRAP_DRAWS = 1000


def _checked(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise UserError(f"Pass@{k} needs 1 ≤ k ≤ n, but there are {n} samples a problem", where="k")


def unbiased_pass_at_k(n: int, k: int) -> np.ndarray:
    """1 − C(n−c, k)/C(n, k) at c = 0 … n, shape (n + 1,), within [0, 1]; paper Eq. 15.

    As a product, ∏_{i=n−c+1}^{n} (1 − k/i), so that nothing overflows for any n.
    """
    _checked(n, k)
    factors = np.maximum(1.0 - k / np.arange(n, 0, -1), 0.0)
    return 1.0 - np.concatenate([[1.0], np.cumprod(factors)])


def bootstrap_pass_at_k(n: int, k: int) -> np.ndarray:
    """1 − (1 − c/n)^k at c = 0 … n, shape (n + 1,): what the release's bootstrap is on average."""
    _checked(n, k)
    return 1.0 - (1.0 - np.arange(n + 1) / n) ** k


def drawn_pass_at_k(correct: np.ndarray, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """The release's bootstrap itself: of 1000 draws of k with replacement, the share with a correct one; shape (N,).

    A draw holds a correct sample with probability 1 − (1 − c/n)^k, independently, so the number of such draws is
    binomial: the same distribution without drawing 1000 × k indices a problem.
    """
    return rng.binomial(BOOTSTRAP_DRAWS, bootstrap_pass_at_k(n, k)[correct]) / BOOTSTRAP_DRAWS


ESTIMATORS = {"unbiased": unbiased_pass_at_k, "bootstrap": bootstrap_pass_at_k}
"""The two of Pass@k, as vectors of values at c = 0 … n."""


def estimator_values(metric: str, estimator: str, n: int, where: object | None = None) -> np.ndarray:
    """A metric's estimator at c = 0 … n, shape (n + 1,).

    metric: "mean" or "pass@k". estimator: one of ESTIMATORS; "mean" has only one. Raises UserError for another metric.
    """
    name, _, k = metric.partition("@")
    if metric == "mean":
        return unbiased_pass_at_k(n, 1)
    if name == "pass" and k.isdecimal() and estimator in ESTIMATORS:
        return ESTIMATORS[estimator](n, int(k))
    raise UserError(f"there is no metric '{metric}' with estimator '{estimator}'", where=where, do="mean or pass@k")


def count_chances(n: int, log_odds: np.ndarray) -> np.ndarray:
    """The binomial chances of c = 0 … n correct samples of n at these log-odds (M,) of one; shape (n + 1, M)."""
    c = np.arange(n + 1)[:, None]
    with np.errstate(under="ignore"):
        return np.asarray(special.comb(n, c) * special.expit(log_odds) ** c * special.expit(-log_odds) ** (n - c))
