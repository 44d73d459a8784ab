"""Controls: rewards that don't say what is right, and neighbors that are none."""

import pytest
import torch
from verl import DataProto

from ngrpo.errors import UserError
from ngrpo.method import rng
from ngrpo.method.neighbor_table import build, nearest
from ngrpo.method.rewards import REWARDS, rewards
from ngrpo.study.objective import Objective
from ngrpo.study.reading import parse
from ngrpo.training.verl.actor import SEEDS
from ngrpo.training.verl.control import replace_rewards

pytestmark = pytest.mark.train

N = 4000
SEED = torch.tensor([rng.derive_seed(1, "rollout", 3, row) for row in range(N)])
CORRECT = (torch.arange(N) % 3 == 0).float()
ANSWERED = (torch.arange(N) % 4 != 1).float()


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_a_control_says_nothing_of_what_is_right(kind: str) -> None:
    given = rewards(kind, CORRECT, ANSWERED, SEED)
    assert set(given.tolist()) == {0.0, 1.0}
    assert abs(correlation(given, CORRECT)) < 4 / N**0.5
    assert correlation(rewards("correct", CORRECT, ANSWERED, SEED), CORRECT) == pytest.approx(1)  # negative control


def test_shuffled_rewards_are_the_batch_s_own() -> None:
    given = rewards("shuffled", CORRECT, ANSWERED, SEED)
    assert given.sum() == CORRECT.sum()
    assert 0.45 < rewards("random", CORRECT, ANSWERED, SEED).mean() < 0.55


def test_another_step_deals_them_out_anew() -> None:
    later = torch.tensor([rng.derive_seed(1, "rollout", 4, row) for row in range(N)])
    for kind in ("shuffled", "random"):
        both = [rewards(kind, CORRECT, ANSWERED, seed) for seed in (SEED, later)]
        assert abs(correlation(*both)) < 4 / N**0.5


@pytest.mark.parametrize("kind", REWARDS)
def test_the_order_of_a_batch_changes_no_reward(kind: str) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    given = rewards(kind, CORRECT, ANSWERED, SEED)
    assert torch.equal(rewards(kind, CORRECT[order], ANSWERED[order], SEED[order]), given[order])


def test_format_rewards_any_answer() -> None:
    assert torch.equal(rewards("format", CORRECT, ANSWERED, SEED), ANSWERED)


def test_the_configuration_knows_the_same_rewards() -> None:
    assert all(parse(Objective, {"reward": kind}, "objective").reward in (kind, None) for kind in REWARDS)
    assert Objective(reward="correct") == Objective()
    with pytest.raises(UserError, match="shuffled"):
        parse(Objective, {"reward": "shufled"}, "objective")
    with pytest.raises(UserError, match="did you mean 'shuffled'"):
        rewards("shufled", CORRECT, ANSWERED, SEED)


def test_a_batch_is_trained_on_the_replaced_rewards_and_keeps_its_grades() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    score = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    batch = DataProto.from_dict(
        tensors={
            "response_mask": mask,
            "token_level_scores": score.clone(),
            "token_level_rewards": score,
            SEEDS: SEED[:3],
        },
        non_tensors={"no_answer": [0.0, 0.0, 1.0]},
    )
    replace_rewards(batch, "format")
    assert batch.batch["token_level_rewards"].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch.batch["token_level_scores"].tolist() == score.tolist()


def test_random_neighbors_are_different_others_whatever_the_embedding_holds() -> None:
    E = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    exclude = torch.arange(300) >= 290
    ids = nearest(E, 5, "random", exclude=exclude)
    assert torch.equal(ids[:, 0], torch.arange(300))
    assert all(len(set(row)) == 5 for row in ids[:290].tolist())
    assert int(ids[:290].max()) < 290
    assert torch.equal(ids[290:], torch.arange(290, 300)[:, None].expand(-1, 5))
    assert torch.equal(nearest(E.flip(0), 5, "random", exclude=exclude), ids)
    assert torch.equal(nearest(E, 5, "random", exclude=exclude, queries=torch.tensor([7, 250])), ids[[7, 250]])
    near = nearest(E, 5, "cosine", exclude=exclude)
    assert not torch.equal(nearest(E.flip(0), 5, "cosine", exclude=exclude), near)  # negative control
    overlap = sum(len(set(a[1:]) & set(b[1:])) for a, b in zip(ids.tolist(), near.tolist(), strict=True))
    assert overlap < 60  # by chance 290 × 4 × 4/289 = 16


def test_random_neighbors_are_drawn_evenly() -> None:
    ids = nearest(torch.ones(40, 2), 40, "random")
    assert all(sorted(row) == list(range(40)) for row in ids.tolist())
    count = torch.bincount(nearest(torch.ones(2000, 2), 11, "random")[:, 1:].flatten(), minlength=2000).double()
    assert count.var() / count.mean() == pytest.approx(1, abs=0.15)


def test_a_table_of_random_neighbors_says_so() -> None:
    table = build(torch.randn(50, 4), 3, "random")
    table.check(50, 3, "random")
    with pytest.raises(UserError, match="metric is random, but cosine"):
        table.check(50, 3, "cosine")
