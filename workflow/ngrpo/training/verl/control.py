"""What advantages are made of, where that isn't just whether answers are right.

Controls replace a batch's rewards by ones that don't say it; DAPO (arXiv 2503.14476) penalizes length, and leaves
groups out from which nothing is learned.
"""

from typing import Any

import torch
from torch import Tensor

from ngrpo.method.objectives.surrogate import Aggregation, without_equal_groups
from ngrpo.method.rewards import overlong_penalty, rewards
from ngrpo.training.verl.actor import SEEDS


def replace_rewards(batch: Any, kind: str) -> None:
    """Set what the advantages are made of; `token_level_scores`, whether answers are right, stays as it was graded.

    batch: a DataProto before its advantages, with its responses' seeds and grades. kind: `objective.reward`.
    """
    tensors = batch.batch
    answered = 1 - torch.tensor(batch.non_tensor_batch["no_answer"].astype(float))
    score = tensors["token_level_scores"].sum(-1).cpu()
    _set_rewards(batch, rewards(kind, score, answered, tensors[SEEDS].cpu()))


def shorten(batch: Any, share: float) -> None:
    """Take `overlong_penalty` from the rewards. batch: as `replace_rewards`'s. share: `objective.overlong_share`."""
    mask, reward = batch.batch["response_mask"], batch.batch["token_level_rewards"].sum(-1)
    _set_rewards(batch, reward + overlong_penalty(mask.sum(-1), mask.shape[-1], share).to(reward))


def drop_equal_groups(batch: Any, reward: Tensor, mode: Aggregation) -> None:
    """Leave groups of one reward (B,), all right or all wrong, out of averages (`without_equal_groups`; Eq. 11).

    batch: a DataProto with its advantages.
    """
    tensors = batch.batch
    number: dict[str, int] = {}
    group = torch.tensor([number.setdefault(uid, len(number)) for uid in batch.non_tensor_batch["uid"]])
    A, mask = tensors["advantages"], tensors["response_mask"]
    tensors["advantages"] = without_equal_groups(A.cpu(), mask.cpu(), reward.cpu(), group, mode).to(A)


def _set_rewards(batch: Any, reward: Tensor) -> None:
    """Put one number a response (B,) where verl looks for it: at its last token."""
    mask, score = batch.batch["response_mask"], batch.batch["token_level_scores"]
    last = mask.sum(-1).long() - 1
    placed = torch.zeros_like(score)
    placed[torch.arange(len(last), device=last.device), last] = reward.to(score)
    batch.batch["token_level_rewards"] = placed
