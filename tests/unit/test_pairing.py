"""Two evaluations share sample seeds: what they have in common is estimated, and intervals get narrower by it alone."""

import numpy as np
from test_metrics import as_grades

from ngrpo.statistics.metrics import compare


def test_what_two_evaluations_share_is_estimated_and_not_taken_for_independent():
    """Systems share sample seeds; samples drawn apart are the control."""
    rng, n, size, widths, hits = np.random.default_rng(7), 16, 40, {}, 0
    p = rng.beta(0.8, 0.8, size) * 0.9
    for shared in (0.0, 0.8):
        for _ in range(30):
            u = rng.uniform(size=(size, n))
            v = np.where(rng.uniform(size=u.shape) < shared, u, rng.uniform(size=u.shape))
            one, other = (as_grades(x < chance[:, None]) for x, chance in ((u, p), (v, np.minimum(p + 0.05, 1.0))))
            row = compare(one, other, []).iloc[0]
            widths.setdefault(shared, []).append(row.sampling_high - row.sampling_low)
            hits += row.sampling_low <= 0.05 <= row.sampling_high
    assert np.mean(widths[0.8]) < 0.65 * np.mean(widths[0.0])
    assert hits / 60 >= 0.85


def test_evaluations_with_other_numbers_of_samples_share_the_first_ones():
    rng = np.random.default_rng(8)
    u = rng.uniform(size=(60, 32))
    p = rng.uniform(0.1, 0.9, 60)[:, None]
    long, short = as_grades(u < p), as_grades((u < p)[:, :8])
    apart = short.assign(sample=short["sample"] + 100)  # no number in common
    widths = [compare(long, other, []).iloc[0] for other in (short, apart)]
    assert widths[0].sampling_high - widths[0].sampling_low < 0.95 * (widths[1].sampling_high - widths[1].sampling_low)
