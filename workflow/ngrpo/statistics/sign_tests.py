"""Tests of paired differences by their signs: problems that moved one way against those that moved the other."""

import numpy as np
from scipy import special

SIGN_FLIPS = 10_000
CHUNK = 1000


def exact_sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of Σ d when each integer d keeps or flips its sign with chance ½; exact, by convolution."""
    sizes = np.abs(differences[differences != 0]).astype(np.int64)
    if not len(sizes):
        return 1.0
    reach = int(sizes.sum())
    chances = np.zeros(reach + 1)  # chances[s]: the sizes given the plus sign add up to s
    chances[0], top = 1.0, 0
    for size in sizes:
        top += int(size)
        chances[size : top + 1] += chances[: top + 1 - size].copy()
        chances[: top + 1] *= 0.5
    sums = np.abs(2 * np.arange(reach + 1) - reach)
    return min(1.0, float(chances[sums >= abs(int(differences.sum()))].sum()))


def sampled_sign_flip_p(differences: np.ndarray, seed: int) -> float:
    """Two-sided p of Σ d under random sign flips, from 10,000 seeded draws; never 0."""
    rng = np.random.default_rng([seed, 2])
    threshold = abs(differences.sum()) - 1e-9  # sums in another order differ in their last bits
    hits = 0
    for _ in range(SIGN_FLIPS // CHUNK):
        signs = rng.integers(0, 2, (CHUNK, len(differences)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ differences) >= threshold).sum())
    return (1 + hits) / (1 + SIGN_FLIPS)


def sign_test_p(improved: int, worsened: int) -> float:
    """Two-sided exact sign test of problems improved against worsened; 1 where none moved."""
    moved = improved + worsened
    return min(1.0, 2 * float(special.bdtr(min(improved, worsened), moved, 0.5))) if moved else 1.0
