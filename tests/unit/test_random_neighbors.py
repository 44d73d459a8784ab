"""The control that mixes other tokens in the neighbors' place, with the neighbors' weights."""

import pytest
import torch

from ngrpo.method.mixers import WEIGHT_SCALE, NeighborMixer
from ngrpo.method.mixers.neighbors import shuffled

pytestmark = pytest.mark.train

B, V = 64, 40


def test_random_ones_have_the_neighbors_weights_and_nothing_of_them() -> None:
    """The control within the control: candidates drawn at random have no weight where the vocabulary is trained."""
    g = torch.Generator().manual_seed(0)
    z, token, seed = 3 * torch.randn(B, V, generator=g), torch.zeros(B, dtype=torch.int64), torch.arange(B)
    position, own = torch.full((B,), 9), torch.arange(V)
    table = torch.stack([own, (own + 1) % V, (own + 2) % V], -1)
    ours = NeighborMixer(0.5).step(z, token, seed, position, table)
    random = NeighborMixer(0.5, fed="random").step(z, token, seed, position, table)
    assert all(torch.equal(getattr(ours, f), getattr(random, f)) for f in ("token", "on", "weights"))
    assert torch.equal(ours.ids[:, 0], random.ids[:, 0])
    assert (random.ids[:, 1:] != random.ids[:, :1]).all()
    assert (random.ids[:, 1:] != ours.ids[:, 1:]).float().mean() > 0.8
    n = 151_936
    whole = torch.arange(n)
    moved = shuffled(torch.stack([torch.full_like(whole, n + 1), whole], -1), n)[:, 1]
    assert torch.equal(moved.sort().values, whole)  # one to one
    peaked = torch.full((1, n), -20.0)
    peaked[0, 5], peaked[0, 6], peaked[0, 9] = 20.0, 17.0, 16.0
    nearest, drawn = torch.zeros(n, 3, dtype=torch.int64), torch.zeros(n, 3, dtype=torch.int64)
    nearest[5], drawn[5] = torch.tensor([5, 6, 9]), torch.tensor([5, 70_000, 90_000])
    one, place = torch.tensor([0]), torch.tensor([3])
    weight = {
        name: NeighborMixer(1.0, fed=fed).step(peaked, one, one, place, of).weights[0, 1:].sum()
        for name, fed, of in (("drawn", "neighbors", drawn), ("shuffled", "random", nearest))
    }
    assert weight["drawn"] == 0
    assert weight["shuffled"] > 0.05 * WEIGHT_SCALE
