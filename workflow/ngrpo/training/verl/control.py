"""Controls of training: a batch's rewards replaced by ones that don't say whether an answer is right."""

from typing import Any

import torch

from ngrpo.method.rewards import rewards
from ngrpo.training.verl.actor import SEEDS


def replace_rewards(batch: Any, kind: str) -> None:
    """Set what the advantages are made of; `token_level_scores`, whether answers are right, stays as it was graded.

    batch: a DataProto before its advantages, with its responses' seeds and grades. kind: `objective.reward`.
    """
    tensors = batch.batch
    score = tensors["token_level_scores"]
    answered = 1 - torch.tensor(batch.non_tensor_batch["no_answer"].astype(float))
    new = rewards(kind, score.sum(-1).cpu(), answered, tensors[SEEDS].cpu())
    last = tensors["response_mask"].sum(-1).long() - 1
    replaced = torch.zeros_like(score)
    replaced[torch.arange(len(last), device=last.device), last] = new.to(score)
    tensors["token_level_rewards"] = replaced
