"""Objectives that verl 0.5.0 lacks, through its policy-loss registry; GRPO's loss is verl's own ("vanilla")."""

import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, register_policy_loss

from ngrpo.method.objectives import gspo_loss


def _gspo(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="seq-mean-token-mean", config=None):
    """GSPO in verl's form: loss, clipped share, KL to the old policy, share at the dual clip (none)."""
    low = config.clip_ratio_low if config.clip_ratio_low is not None else config.clip_ratio
    high = config.clip_ratio_high if config.clip_ratio_high is not None else config.clip_ratio
    found = gspo_loss(log_prob, old_log_prob, advantages, response_mask, low=low, high=high, aggregation=loss_agg_mode)
    return found.loss, found.clipped, found.kl, torch.tensor(0.0)


def register() -> None:
    """Add our objectives to verl's registry."""
    if "gspo" not in POLICY_LOSS_REGISTRY:
        register_policy_loss("gspo")(_gspo)
