"""Random streams are pure functions of (seed, position, stream); draws follow their probabilities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.method import rng, sampling
from ngrpo.method.mixers.interface import largest

pytestmark = pytest.mark.train


def test_uniform_numbers_are_uniform_and_streams_are_independent() -> None:
    n = 200_000
    seeds, position = torch.arange(n), torch.full((n,), 7)
    draws = [rng.uniform(seeds, position, s) for s in (rng.GATE, rng.TOKEN)]
    draws += [rng.uniform(seeds, position + 1, rng.GATE), rng.uniform(torch.full((n,), 3), seeds, rng.GATE)]
    for u in draws:
        assert ((u >= 0) & (u < 1)).all()
        # Kolmogorov-Smirnov distance: 1.95 / sqrt(n) is passed with probability 0.001
        assert (u.sort().values - (torch.arange(n) + 0.5) / n).abs().max() < 1.95 / n**0.5
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 4.5 / n**0.5


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**31 - 1), st.integers(1, 5))
def test_a_draw_depends_on_its_own_row_only(seed: int, position: int, rows: int) -> None:
    alone = rng.uniform(torch.tensor([seed]), torch.tensor([position]), rng.GATE)
    batch = rng.uniform(torch.tensor([*range(rows), seed]), torch.tensor([0] * rows + [position]), rng.GATE)
    assert batch[-1] == alone[0]


def test_known_values_never_change() -> None:
    """Stored records and resumed runs depend on these numbers."""
    u = rng.uniform(torch.tensor([0, 1, 2**61]), torch.tensor([0, 5, 8191]), rng.GATE)
    assert u.tolist() == [0.33805245419550545, 0.006019616020569329, 0.946736418570904]
    assert rng.derive_seed(1, "rollout", 12, 3) == 3898039998323226845


def test_derived_seeds_keep_names_apart() -> None:
    assert rng.derive_seed(1, "rollout", 12, 3) != rng.derive_seed(1, "rollout", 1, 23)
    assert len({rng.derive_seed(1, "x", i) for i in range(10_000)}) == 10_000
    assert 0 <= rng.derive_seed(5) < 2**62


def test_draw_is_the_inverse_of_the_distribution_function() -> None:
    p = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    u = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert sampling.draw(p.expand(6, -1), u).tolist() == [1, 1, 3, 3, 4, 4]


def test_draw_follows_the_probabilities() -> None:
    p = torch.softmax(torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2, -1)
    n = 100_000
    u = rng.uniform(torch.arange(n), torch.zeros(n, dtype=torch.int64), rng.TOKEN)
    counts = torch.bincount(sampling.draw(p.expand(n, -1), u), minlength=50)
    chi2 = ((counts - n * p[0]) ** 2 / (n * p[0])).sum()
    assert chi2 < 85.4  # 49 degrees of freedom, passed with probability 0.001


def test_restrict_keeps_the_nucleus_and_the_likeliest() -> None:
    p = torch.tensor([[0.1, 0.4, 0.3, 0.2]]).expand(4, -1)
    top_p = torch.tensor([0.7, 0.71, 1.0, 0.01])
    top_k = torch.tensor([-1, -1, 1, 0])
    possible = sampling.restrict(p, top_p, top_k) > 0
    assert possible.tolist() == [
        [False, True, True, False],
        [False, True, True, True],
        [False, True, False, False],
        [False, True, False, False],
    ]
    assert sampling.restrict(p, torch.ones(4), torch.full((4,), -1)).equal(p)


def test_log_prob_ignores_the_restriction() -> None:
    z = torch.randn(3, 9)
    token = torch.tensor([0, 4, 8])
    assert torch.equal(sampling.log_prob(z, token), torch.log_softmax(z, -1)[torch.arange(3), token])


@pytest.mark.parametrize("V", [5, 4096, 5000])
def test_the_anchor_is_the_first_of_the_largest(V: int) -> None:
    z = torch.randint(-3, 4, (8, V), generator=torch.Generator().manual_seed(V)).float()
    z[1, V - 1] = z[2, V // 2] = 9
    z[3], z[4, V // 3] = -torch.inf, torch.nan
    first = [int(torch.nonzero((row == row.max()) | row.isnan())[0]) for row in z]
    assert largest(z).tolist() == first
    assert largest(z.flip(-1)).tolist() != (V - 1 - largest(z)).tolist()  # negative control: there are ties
