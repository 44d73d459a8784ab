"""DAPO's options (arXiv 2503.14476): the penalty of long responses, and groups from which nothing is learned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from verl import DataProto

from ngrpo.method.objectives.surrogate import aggregate, group_advantages, without_equal_groups
from ngrpo.method.rewards import overlong_penalty
from ngrpo.study.expand import load_study
from ngrpo.study.objective import Objective

pytestmark = pytest.mark.train

MASK = (torch.arange(10) < torch.tensor([10, 5, 2, 7, 4, 9])[:, None]).long()
GROUP = torch.tensor([0, 0, 1, 1, 2, 2])
REWARD = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])


def test_the_penalty_begins_at_the_buffer_and_is_half_a_reward_at_the_end() -> None:
    """Eq. 13 for rewards of 0 and 1: advantages are those of rewards of ±1 with twice the penalty."""
    length = torch.tensor([1, 80, 85, 90, 100])
    penalty = overlong_penalty(length, 100, 0.2)
    assert penalty.tolist() == pytest.approx([0, 0, -0.125, -0.25, -0.5])
    right = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    ours = group_advantages(right + penalty, 5, epsilon=0)
    assert torch.allclose(ours, group_advantages(2 * right - 1 + 2 * penalty, 5, epsilon=0))
    assert not torch.allclose(ours, group_advantages(right + 2 * penalty, 5), atol=0.05)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean"])
def test_a_dropped_group_leaves_the_average_of_the_others(mode) -> None:
    A = group_advantages(REWARD, 2)[:, None].expand(6, 10)
    values = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    dropped, others = without_equal_groups(A, MASK, REWARD, GROUP, mode), GROUP != 1
    expected = aggregate(A[others] * values[others], MASK[others], mode)
    assert torch.allclose(aggregate(dropped * values, MASK, mode), expected)
    assert not torch.allclose(aggregate(A * values, MASK, mode), expected)  # the control: it counts
    assert not without_equal_groups(A, MASK, torch.ones(6), GROUP, mode).any()
    rest = A[others], MASK[others], REWARD[others], GROUP[others]
    assert torch.equal(without_equal_groups(*rest, mode), A[others])


def batch() -> DataProto:
    """A batch as verl's loop has it before its advantages: one reward a response, at its last token."""
    score = torch.zeros(6, 10)
    score[torch.arange(6), MASK.sum(-1) - 1] = REWARD
    tensors = {"response_mask": MASK, "token_level_scores": score, "token_level_rewards": score}
    return DataProto.from_dict(tensors, non_tensors={"uid": np.array(list("aabbcc"), dtype=object)})


def test_in_verls_batch_the_penalty_is_in_the_rewards_and_not_in_the_scores() -> None:
    from ngrpo.training.verl.control import shorten

    data = batch()
    shorten(data, 0.5)
    assert torch.equal(data.batch["token_level_scores"].sum(-1), REWARD)
    penalized = REWARD + overlong_penalty(MASK.sum(-1), 10, 0.5)
    assert not torch.equal(penalized, REWARD)
    assert torch.allclose(data.batch["token_level_rewards"].sum(-1), penalized)
    assert torch.allclose(data.batch["token_level_rewards"][torch.arange(6), MASK.sum(-1) - 1], penalized)


def test_in_verls_batch_groups_are_known_by_their_prompts_whatever_the_order() -> None:
    from ngrpo.training.verl.control import drop_equal_groups

    A = group_advantages(REWARD, 2)[:, None] * MASK
    data = batch()
    data.batch["advantages"] = A
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    data.reorder(order)
    drop_equal_groups(data, REWARD[order], "token-mean")
    assert torch.equal(data.batch["advantages"], without_equal_groups(A, MASK, REWARD, GROUP, "token-mean")[order])


def test_dapo_is_a_method_of_the_study() -> None:
    objective = Objective.model_validate(load_study(Path("config"), "toy").study.methods["dapo"].objective)
    assert objective.clip == (0.2, 0.28)
    assert (objective.aggregation, objective.kl_coefficient, objective.dual) == ("token-mean", 0, 10)
    assert (objective.overlong_share, objective.equal_groups) == (0.2, "drop")
