"""SofT-GRPO's likelihood (arXiv 2511.06411): the density of its noisy scores, worked by hand and by torch."""

import math

import pytest
import torch

from ngrpo.errors import UserError
from ngrpo.method.mixers import GumbelMixer

pytestmark = pytest.mark.train

V, N = 12, 64


def steps(mixer: GumbelMixer, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(N, V, generator=g)
    log_p = torch.log_softmax(z, -1)
    return log_p, mixer.step(z, torch.zeros(N, dtype=torch.int64), torch.arange(N), torch.full((N,), 9))


def test_it_is_the_noises_density_worked_by_hand() -> None:
    """p = 0.5, 0.25; ε = 1 and −0.5: −1 − e⁻¹ and 0.5 − e^0.5."""
    log_p = torch.tensor([[math.log(0.5), math.log(0.25)]])
    scores = log_p + torch.tensor([[1.0, -0.5]])
    own = GumbelMixer(k=2, log_prob="noise").likelihood(log_p, scores)
    assert float(own) == pytest.approx((-1 - math.exp(-1)) + (0.5 - math.exp(0.5)), abs=1e-6)


def test_as_released_it_is_a_clamped_mean_over_likely_candidates_worked_by_hand() -> None:
    """p = 0.4, 0.09, 0.01 are 0.8, 0.18, 0.02 of the candidates: log 0.02 is below −3. ε = 4 is cut to 3."""
    log_p = torch.tensor([[0.4, 0.09, 0.01]]).log()
    renormalized = torch.tensor([[0.8, 0.18, 0.02]]).log()
    scores = renormalized + torch.tensor([[4.0, -0.5, 0.7]])
    own = GumbelMixer(k=3, log_prob="release").likelihood(log_p, scores)
    expected = ((-3 - math.exp(-3)) + (0.5 - math.exp(0.5))) / 2
    assert float(own) == pytest.approx(expected, abs=1e-4)


def test_a_step_has_the_scores_of_its_candidates_and_their_likelihood() -> None:
    mixer = GumbelMixer(k=4, low=-50, high=50, log_prob="noise")
    log_p, step = steps(mixer)
    noise = step.scores - log_p.gather(-1, step.ids)
    peer = torch.distributions.Gumbel(0.0, 1.0).log_prob(noise).sum(-1)
    assert torch.allclose(step.likelihood, peer, atol=1e-4)
    assert torch.equal(step.scores, step.scores.sort(-1, descending=True).values)
    _, other = steps(GumbelMixer(k=4, low=-50, high=50))
    assert (other.likelihood, other.scores) == (None, None)
    assert torch.equal(other.ids, step.ids)  # nothing but the likelihood differs
    assert torch.equal(other.weights, step.weights)


def test_the_likeliest_are_renormalized_before_they_get_noise() -> None:
    mixer = GumbelMixer(k=4, low=-50, high=50, chosen_by="probability", log_prob="noise")
    log_p, step = steps(mixer)
    likeliest = log_p.topk(4)
    assert torch.equal(step.ids.sort(-1).values, likeliest.indices.sort(-1).values)
    of_candidates = torch.log_softmax(log_p.gather(-1, step.ids), -1)
    peer = torch.distributions.Gumbel(0.0, 1.0).log_prob(step.scores - of_candidates).sum(-1)
    assert torch.allclose(step.likelihood, peer, atol=1e-4)
    assert torch.equal(step.scores, step.scores.sort(-1, descending=True).values)
    assert not torch.equal(step.ids, likeliest.indices)  # the noise orders them
    _, noisy = steps(GumbelMixer(k=4, low=-50, high=50, log_prob="noise"))
    assert not torch.equal(step.ids.sort(-1).values, noisy.ids.sort(-1).values)


@pytest.mark.parametrize(("chosen_by", "fair"), [("probability", True), ("noise", False)])
def test_the_score_has_mean_zero_where_noise_has_not_chosen_the_candidates(chosen_by: str, fair: bool) -> None:
    """As the gradient of a density has; candidates that were chosen for their noise break it."""
    mixer = GumbelMixer(k=3, low=-50, high=50, chosen_by=chosen_by, log_prob="noise")
    z, count = torch.linspace(0, 2, V).repeat(20000, 1), 20000
    step = mixer.step(z, torch.zeros(count, dtype=torch.int64), torch.arange(count), torch.full((count,), 5))
    log_p = torch.log_softmax(z, -1).gather(-1, step.ids).requires_grad_()
    mixer.likelihood(log_p, step.scores).sum().backward()
    mean = torch.zeros(V).index_add(0, step.ids.flatten(), log_p.grad.flatten()) / count
    assert (float(mean.abs().max()) < 0.03) == fair, mean


def test_a_candidate_gains_where_its_noise_was_large() -> None:
    """∂/∂log π_i of −ε − e^(−ε) is 1 − e^(−ε): 0 at ε = 0, and 0 on average over the noise."""
    log_p = torch.log_softmax(torch.randn(4000, 5, generator=torch.Generator().manual_seed(1)), -1).requires_grad_()
    noise = torch.distributions.Gumbel(0.0, 1.0).sample(log_p.shape)
    GumbelMixer(k=5, log_prob="noise").likelihood(log_p, log_p.detach() + noise).sum().backward()
    assert torch.allclose(log_p.grad, 1 - torch.exp(-noise), atol=1e-3)
    assert log_p.grad.mean(0).abs().max() < 0.1
    assert (torch.sign(log_p.grad) == torch.sign(noise)).float().mean() > 0.999


def test_scores_that_are_missing_and_unknown_settings_are_refused() -> None:
    with pytest.raises(UserError, match="noisy scores"):
        GumbelMixer(log_prob="noise").likelihood(torch.zeros(1, 5))
    with pytest.raises(UserError, match="log_prob"):
        GumbelMixer(log_prob="noisy")
