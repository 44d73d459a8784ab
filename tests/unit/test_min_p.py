"""Min-p (arXiv 2407.01082): which tokens may be drawn, and how often each is."""

import pytest
import torch

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.mixers import MinPMixer
from ngrpo.method.sampling import draw

pytestmark = pytest.mark.train

N = 20_000
P = torch.tensor([0.4, 0.3, 0.16, 0.1, 0.04])
Z, TOKEN, SEED, POSITION = (
    P.log().expand(N, -1),
    torch.full((N,), 4),
    torch.arange(N),
    torch.zeros(N, dtype=torch.int64),
)


def shares(mixer: MinPMixer) -> torch.Tensor:
    step = mixer.step(Z, TOKEN, SEED, POSITION)
    assert not step.on.any()
    assert torch.equal(step.ids[:, 0], step.token)
    return torch.bincount(step.token, minlength=5) / N


@pytest.mark.parametrize(
    ("mixer", "possible"),
    [
        (MinPMixer(0.2), 4),
        (MinPMixer(0.3), 3),
        (MinPMixer(1.0), 1),
        (MinPMixer(0.2, top_p=0.65), 2),
        (MinPMixer(0.0), 5),
    ],
)
def test_only_what_is_likely_enough_is_drawn_in_its_proportions(mixer: MinPMixer, possible: int) -> None:
    expected = torch.where(torch.arange(5) < possible, P, 0.0)
    assert (shares(mixer) - expected / expected.sum()).abs().max() < 0.015
    assert (shares(mixer) > 0).sum() == possible


def test_no_floor_is_the_engines_own_draw() -> None:
    drawn = draw(torch.softmax(Z, -1), rng.uniform(SEED, POSITION, rng.TOKEN))
    assert torch.equal(MinPMixer(0.0).step(Z, TOKEN, SEED, POSITION).token, drawn)
    assert not torch.equal(MinPMixer(0.3).step(Z, TOKEN, SEED, POSITION).token, drawn)


@pytest.mark.parametrize("settings", [{"min_p": -0.1}, {"min_p": 1.1}, {"min_p": 0.1, "top_p": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match="min-p"):
        MinPMixer(**settings)
