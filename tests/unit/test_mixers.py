"""Promises of the input mixers (Eq. 6-11)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.errors import UserError
from ngrpo.method.mixers import UNIT, NeighbourMixer, NoMixer, blend, mixer_from, quantise

pytestmark = pytest.mark.train

B, V, D = 64, 40, 16


def _table(k: int) -> torch.Tensor:
    """Anchor first, then its followers on a ring."""
    return (torch.arange(V)[:, None] + torch.arange(k)) % V


def _step(mixer, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(B, V, generator=generator) * 3
    token = torch.randint(V, (B,), generator=generator)
    k = mixer.width
    return z, token, mixer.step(z, token, torch.arange(B), torch.full((B,), 9), _table(k))


@given(st.integers(1, 6), st.integers(0, 1000))
def test_weights_sum_to_one_exactly_and_follow_the_softmax_over_candidates(k: int, seed: int) -> None:
    z, _, step = _step(NeighbourMixer(rho=1.0, k=k), seed)
    assert (step.units.sum(-1) == UNIT).all()
    assert (step.units >= 0).all()
    alpha = torch.softmax(z.gather(-1, step.ids), -1)
    assert (step.units / UNIT - alpha).abs().max() <= k * 2**-17 + 1e-6
    assert (step.ids[:, 0] == z.argmax(-1)).all()


def test_a_mixed_step_writes_the_anchor_and_another_writes_the_sample() -> None:
    z, token, step = _step(NeighbourMixer(rho=0.5))
    assert 0 < step.on.sum() < B
    assert (step.token[step.on] == z.argmax(-1)[step.on]).all()
    assert (step.token[~step.on] == token[~step.on]).all()


@given(st.floats(0, 1))
def test_the_gate_mixes_a_share_rho(rho: float) -> None:
    n = 20_000
    mixer = NeighbourMixer(rho=rho, k=1)
    z = torch.zeros(n, 1)
    on = mixer.step(z, z[:, 0].long(), torch.arange(n), torch.zeros(n, dtype=torch.int64), torch.zeros(1, 1)).on
    assert abs(on.double().mean().item() - rho) <= 4.5 * (rho * (1 - rho) / n) ** 0.5 + 1e-12


def test_rho_zero_never_mixes_and_rho_one_always_does() -> None:
    for rho, share in ((0.0, 0), (1.0, B)):
        _, token, step = _step(NeighbourMixer(rho=rho))
        assert step.on.sum() == share
        if not share:
            assert torch.equal(step.token, token)


def test_no_mixer_feeds_the_token() -> None:
    _, token, step = _step(NoMixer())
    assert not step.on.any()
    assert torch.equal(step.token, token)
    assert torch.equal(step.ids[:, 0], token)
    assert (step.units == UNIT).all()


def test_k_one_feeds_exactly_the_anchors_embedding() -> None:
    E = torch.randn(V, D)
    z, _, step = _step(NeighbourMixer(rho=1.0, k=1))
    assert torch.equal(blend(E[step.ids], step.units), E[z.argmax(-1)])


def test_a_permutation_of_candidates_changes_nothing_but_rounding() -> None:
    E = torch.randn(V, D, dtype=torch.float64).float()
    _, _, step = _step(NeighbourMixer(rho=1.0, k=5))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    one, other = blend(E[step.ids], step.units), blend(E[step.ids[:, order]], step.units[:, order])
    assert (one - other).abs().max() < 1e-6
    # the control: weights that stay behind when their candidates move do change the mixture
    assert (one - blend(E[step.ids[:, order]], step.units)).abs().max() > 0.1


def test_blend_is_differentiable_in_the_rows_and_equals_the_formula() -> None:
    rows = torch.randn(7, 3, D, requires_grad=True)
    units = quantise(torch.softmax(torch.randn(7, 3), -1))
    blend(rows, units).sum().backward()
    assert torch.allclose(rows.grad, (units / UNIT)[..., None].expand_as(rows))


def test_temperature_enters_through_the_scaled_logits() -> None:
    mixer = NeighbourMixer(rho=1.0)
    z, token, sharp = _step(mixer)
    flat = mixer.step(z / 10, token, torch.arange(B), torch.full((B,), 9), _table(3))
    assert torch.equal(flat.ids, sharp.ids)
    assert (flat.units[:, 0] < sharp.units[:, 0]).float().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "neighbours", "rho": 1.2}, "rho is 1.2"),
        ({"kind": "neighbours", "rho": -0.1}, "rho is -0.1"),
        ({"kind": "neighbours", "rho": 0.1, "k": 0}, "k is 0"),
        ({"kind": "neighbors", "rho": 0.1}, "did you mean 'neighbours'"),
        ({"kind": "neighbours", "rho": 0.1, "rate": 1}, "rate"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        mixer_from(settings)


def test_mixing_without_a_table_is_refused() -> None:
    with pytest.raises(UserError, match="without a neighbour table"):
        one = torch.zeros(1, dtype=torch.int64)
        NeighbourMixer(rho=1.0).step(torch.zeros(1, V), one, one, one, None)
