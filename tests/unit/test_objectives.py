"""Losses and gradients against hand-worked numbers and verl's own."""

import math
from pathlib import Path

import pytest
import torch

from ngrpo.errors import UserError
from ngrpo.method.objectives import grpo, gspo, kinds, loss_of
from ngrpo.method.objectives.surrogate import aggregate, group_advantages, kl_k3
from ngrpo.study.expand import load_study
from ngrpo.study.objective import CLIP_RANGES, Objective
from ngrpo.study.reading import parse

pytestmark = pytest.mark.train

ROOT = Path(__file__).resolve().parents[2]


def grpo_loss(lp, old, A, mask, clip=CLIP_RANGES["grpo"], aggregation="seq-mean-token-mean"):
    """GRPO's, with its own clip range."""
    return grpo.loss(lp, old, A, mask, clip=clip, aggregation=aggregation)


def gspo_loss(lp, old, A, mask, clip=CLIP_RANGES["gspo"], aggregation="seq-mean-token-mean"):
    """GSPO's, with its own clip range."""
    return gspo.loss(lp, old, A, mask, clip=clip, aggregation=aggregation)


def _batch(seed: int = 0, spread: float = 0.3):
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 9, generator=g) * 3
    lp = (old + torch.randn(6, 9, generator=g) * spread).requires_grad_()
    A = torch.randn(6, 1, generator=g).expand(6, 9)
    mask = (torch.arange(9) < torch.randint(1, 10, (6, 1), generator=g)).float()
    return lp, old, A, mask


def test_group_advantages_by_hand() -> None:
    A = group_advantages(torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1]), 4)
    one = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    assert torch.allclose(A, torch.tensor([one, -one, -one, one, 0, 0, 0, 0]), atol=1e-6)


def test_grpo_by_hand() -> None:
    """One response of two tokens, ratios 1.5 (clipped at 1.2) and 0.5; one of a single token, ratio 1."""
    old = torch.zeros(2, 2)
    lp = torch.tensor([[math.log(1.5), math.log(0.5)], [0.0, 9.0]], requires_grad=True)
    A = torch.tensor([[2.0, 2.0], [-1.0, -1.0]])
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss, clipped, _ = grpo_loss(lp, old, A, mask)
    assert loss.item() == pytest.approx(((-2.4 - 1.0) / 2 + 1.0) / 2)  # Eq. 13: mean of sequence means
    assert clipped.item() == pytest.approx(1 / 3)
    loss.backward()
    assert torch.allclose(lp.grad, torch.tensor([[0, -2 * 0.5 / 4], [0.5, 0]]))
    token_mean = grpo_loss(lp, old, A, mask, aggregation="token-mean").loss
    assert token_mean.item() == pytest.approx((-2.4 - 1.0 + 1.0) / 3)


def test_the_dual_clip_bounds_the_loss_of_bad_responses() -> None:
    lp = torch.tensor([[math.log(9.0)]])
    loss = grpo_loss(lp, torch.zeros(1, 1), torch.tensor([[-2.0]]), torch.ones(1, 1)).loss
    assert loss.item() == pytest.approx(6.0)


def test_gspo_by_hand() -> None:
    """s = exp(mean(log 1.1, log 0.9)); inside wide clips the loss is −A·s and its gradient −A·s/T at each token."""
    lp = torch.tensor([[math.log(1.1), math.log(0.9)]], requires_grad=True)
    s = math.sqrt(1.1 * 0.9)
    loss, clipped, _ = gspo_loss(lp, torch.zeros(1, 2), torch.full((1, 2), 3.0), torch.ones(1, 2), (0.5, 0.5))
    assert loss.item() == pytest.approx(-3 * s)
    assert clipped.item() == 0
    loss.backward()
    assert torch.allclose(lp.grad, torch.full((1, 2), -3 * s / 2))
    # with its own narrow range the same ratio is outside: A > 0 and s < 1 is not clipped, A < 0 is
    assert gspo_loss(lp, torch.zeros(1, 2), -torch.ones(1, 2), torch.ones(1, 2)).clipped == 1


def _as_verl_calls_it(kind: str, lp, old, A, mask, **objective) -> torch.Tensor:
    """The loss that verl's actor gets of our registered objective, under its own aggregation."""
    from omegaconf import OmegaConf

    from ngrpo.training.verl.losses import PolicyLoss
    from ngrpo.training.verl.recipe import of_actor

    o = Objective(kind=kind, **objective)
    config = {"clip_ratio_low": o.clip[0], "clip_ratio_high": o.clip[1], "ngrpo": of_actor(o)}
    return PolicyLoss(kind)(old, lp, A, mask, loss_agg_mode=o.aggregation, config=OmegaConf.create(config))[0]


def test_released_gspo_has_a_dual_clip_and_a_policy_term_that_is_always_a_mean_over_sequences() -> None:
    lp, old, _, mask = _batch(spread=2.0)
    A = -torch.ones(6, 9)
    wide = {"clip_low": 0.9, "clip_high": 99.0}

    def loss(**objective) -> float:
        return _as_verl_calls_it("gspo", lp, old, A, mask, **wide, **objective).item()

    log_s = ((lp - old) * mask).sum(-1) / mask.sum(-1)
    s = log_s.exp()
    assert s.max() > 3
    assert loss() == pytest.approx(s.mean().item(), rel=1e-4)
    assert loss(dual_clip=3.0) == pytest.approx(s.clamp(max=3.0).mean().item(), rel=1e-4)
    tokens = mask.sum(-1)
    assert loss(aggregation="token-mean") == pytest.approx(((s * tokens).sum() / tokens.sum()).item(), rel=1e-4)
    sequences = loss(aggregation="token-mean", policy_aggregation="seq-mean-token-mean")
    assert sequences == pytest.approx(loss(), rel=1e-6)


def test_dr_grpo_divides_neither_by_a_response_s_length_nor_by_the_group_s_spread() -> None:
    """Ratios of 1: the loss is −A summed over tokens, over T and the batch; a token weighs the same at any length."""
    from ngrpo.training.verl.recipe import science

    old = torch.zeros(2, 4)
    lp = old.clone().requires_grad_()
    A, mask = torch.tensor([[2.0], [-1.0]]).expand(2, 4), torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]])
    loss = _as_verl_calls_it("dr_grpo", lp, old, A, mask)
    assert loss.item() == pytest.approx((-2.0 * 4 + 1.0) / 4 / 2)
    loss.backward()
    assert torch.allclose(lp.grad, -A * mask / 8)
    by_length = _as_verl_calls_it("dr_grpo", old, old, A, mask, policy_aggregation="seq-mean-token-mean")
    assert by_length.item() == pytest.approx((-2.0 + 1.0) / 2)
    far = torch.full((2, 4), math.log(9.0))
    assert _as_verl_calls_it("dr_grpo", far, old, -torch.ones(2, 4), mask).item() == pytest.approx(9 * 5 / 8)  # no dual
    assert torch.equal(
        group_advantages(torch.tensor([1.0, 0, 0, 1]), 2, by_std=False), torch.tensor([0.5, -0.5, -0.5, 0.5])
    )
    spec = next(iter(load_study(ROOT / "config", "toy").runs.values()))
    for objective, divides, entropy in (
        (Objective(), True, 0),
        (Objective(kind="dr_grpo"), False, 0),
        (Objective(norm_adv_by_std=False, entropy_coefficient=0.01), False, 0.01),
        (Objective(kind="dr_grpo", norm_adv_by_std=True), True, 0),
    ):
        settings = science(spec.model_copy(update={"objective": objective}), 1)
        assert settings["algorithm.norm_adv_by_std_in_grpo"] is divides
        assert settings["actor_rollout_ref.actor.entropy_coeff"] == entropy


def test_what_verls_own_grpo_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="verl aggregates GRPO's policy and KL terms alike"):
        parse(Objective, {"policy_aggregation": "token-mean"}, "study.yaml")
    assert Objective(policy_aggregation="seq-mean-token-mean").policy_aggregation  # the same as its aggregation
    assert (Objective().dual, Objective(kind="gspo").dual, Objective(dual_clip=9.0).dual) == (3.0, None, 9.0)


def test_gspo_ignores_what_is_masked() -> None:
    lp, old, A, mask = _batch()
    noise = torch.where(mask > 0, 0.0, 5.0)
    assert torch.equal(gspo_loss(lp, old, A, mask).loss, gspo_loss(lp + noise, old, A, mask).loss)


@pytest.mark.parametrize("mode", ["seq-mean-token-mean", "token-mean"])
def test_grpo_equals_verls_loss_and_gradient(mode) -> None:
    from verl.trainer.ppo.core_algos import compute_policy_loss

    for seed in range(5):
        lp, old, A, mask = _batch(seed)
        ours = grpo_loss(lp, old, A, mask, aggregation=mode)
        ours.loss.backward()
        gradient, lp.grad = lp.grad, None
        theirs = compute_policy_loss(
            old_log_prob=old, log_prob=lp, advantages=A, response_mask=mask, cliprange=0.2, cliprange_low=0.2,
            cliprange_high=0.2, clip_ratio_c=3.0, loss_agg_mode=mode,
        )  # fmt: skip
        theirs[0].backward()
        assert torch.allclose(ours.loss, theirs[0], atol=1e-6)
        assert torch.allclose(gradient, lp.grad, atol=1e-7)


def test_advantages_and_kl_equal_verls() -> None:
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, kl_penalty

    lp, old, _, mask = _batch()
    assert torch.allclose(kl_k3(lp, old), kl_penalty(lp, old, "low_var_kl"))
    reward = torch.tensor([1.0, 0, 0, 0, 1, 1])
    scores = torch.zeros(6, 9)
    scores[:, 0] = reward
    theirs, _ = compute_grpo_outcome_advantage(scores, mask, index=[0, 0, 0, 1, 1, 1], epsilon=1e-6)
    assert torch.allclose(group_advantages(reward, 3)[:, None] * mask, theirs, atol=1e-6)


def test_aggregations_differ_where_lengths_do() -> None:
    values, mask = torch.tensor([[1.0, 1.0], [3.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert aggregate(values, mask, "seq-mean-token-mean").item() == 2.0
    assert aggregate(values, mask, "token-mean").item() == pytest.approx(5 / 3)


def test_every_objective_has_a_loss_and_a_configuration() -> None:
    assert kinds() == sorted(CLIP_RANGES)
    for kind in kinds():
        lp, old, A, mask = _batch()
        loss, clipped, kl = loss_of(kind)(lp, old, A, mask, clip=Objective(kind=kind).clip, aggregation="token-mean")
        assert loss.isfinite()
        assert 0 <= clipped <= 1
        assert kl.isfinite()
    with pytest.raises(UserError, match="there is no objective 'surrogate'"):
        loss_of("surrogate")
    with pytest.raises(UserError, match="no such objective; did you mean 'grpo'"):
        parse(Objective, {"kind": "grppo"}, "study.yaml")


def test_an_objective_clips_as_its_kind_does_unless_it_is_told() -> None:
    assert (Objective().clip, Objective(kind="gspo").clip) == ((0.2, 0.2), (3e-4, 4e-4))
    assert Objective(kind="gspo", clip_low=0.2).clip == (0.2, 4e-4)


def test_verl_finds_every_objective_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the control: another loss in the registry is seen."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn

    from ngrpo.training.verl import losses

    losses.register()
    monkeypatch.delitem(POLICY_LOSS_REGISTRY, "gspo")
    with pytest.raises(UserError, match="verl doesn't use our loss of 'gspo'"):
        losses.check()
    losses.register()
    losses.check()
    for kind in set(kinds()) - set(losses.VERLS_OWN):
        assert get_policy_loss_fn(kind).kind == kind
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "gspo", get_policy_loss_fn("gpg"))
    with pytest.raises(UserError, match="verl doesn't use our loss of 'gspo'"):
        losses.check()
