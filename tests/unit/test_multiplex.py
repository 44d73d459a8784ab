"""Multiplex Thinking's mixer (arXiv 2601.08808): independent draws, and a likelihood of all of them."""

import pytest
import torch

from ngrpo.errors import UserError
from ngrpo.method.mixers import WEIGHT_SCALE, MultiplexMixer, feed
from ngrpo.method.records import FedStep, log_probs_of
from ngrpo.method.sampling import log_prob

pytestmark = pytest.mark.train

B, V, D = 64, 40, 16


def test_multiplex_feeds_independent_draws_and_its_likelihood_is_their_product() -> None:
    n, z = 20_000, torch.tensor([[1.0, 0.0, -1.0, 0.5]]).expand(20_000, -1)
    token, seed, log_p = torch.full((n,), 2), torch.arange(n), torch.log_softmax(z, -1)
    step = MultiplexMixer(k=4).step(z, token, seed, token)
    assert step.on.all()
    assert torch.equal(step.token, token)
    assert torch.equal(step.ids[:, 0], token)
    for j in (1, 2, 3):
        assert (torch.bincount(step.ids[:, j], minlength=4) / n - log_p[0].exp()).abs().max() < 0.02
    pairs = torch.bincount(step.ids[:, 1] * 4 + step.ids[:, 2], minlength=16) / n
    assert (pairs - torch.outer(log_p[0].exp(), log_p[0].exp()).flatten()).abs().max() < 0.02  # independent
    assert torch.equal(step.weights, torch.full_like(step.weights, WEIGHT_SCALE // 4))
    assert torch.allclose(step.likelihood, sum(log_p.gather(1, step.ids[:, [j]])[:, 0] for j in range(4)))
    assert not torch.allclose(step.likelihood, log_p[:, 2], atol=0.1)  # the control: its token's
    likely = MultiplexMixer(k=4, weights="probabilities").step(z, token, seed, token)
    p = log_p.exp().gather(1, likely.ids)
    assert torch.equal(likely.ids, step.ids)
    assert torch.allclose(likely.weights / WEIGHT_SCALE, p / p.sum(-1, keepdim=True), atol=1e-4)
    narrow = MultiplexMixer(k=4, top_p=0.6).step(z, token, seed, token)
    assert set(narrow.ids[:, 1:].unique().tolist()) == {0, 3}


def test_multiplex_of_one_draw_is_stock_sampling() -> None:
    E, z = torch.randn(V, D), torch.randn(B, V)
    token, seed, position = z.argmin(-1), torch.arange(B), torch.full((B,), 9)
    step = MultiplexMixer(k=1).step(z, token, seed, position)
    assert torch.equal(feed(step, seed, position, E.__getitem__, lambda weights: weights @ E), E[token])
    assert torch.equal(step.likelihood, log_prob(z, token))


@pytest.mark.parametrize(("name", "value"), [("k", 0), ("top_p", 0.0), ("weights", "equal")])
def test_settings_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(UserError, match=name):
        MultiplexMixer(**{name: value})


def test_likelihoods_replace_log_probs_of_mixed_steps_but_of_the_last_token() -> None:
    steps = [FedStep(t, [1, 2], [1, 1], 0.0, (), own) for t, own in ((0, -5.0), (1, None), (3, -7.0))]
    log_probs = [-1.0, -2.0, -3.0, -4.0]
    log_probs_of(steps, log_probs, 3)
    assert log_probs == [-5.0, -2.0, -3.0, -4.0]
    log_probs_of(steps, log_probs, 4)
    assert log_probs[3] == -7.0
