"""Objectives in verl: GRPO's loss is its own; all others of `ngrpo.method.objectives` join its registry.

verl is imported where its registry is used, not here: a run's settings need the names alone, before Ray's environment
is set (`ngrpo.training.nodes.set_environment`).
"""

from typing import Any

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.objectives import kinds, loss_of
from ngrpo.training.verl.recipe import VERLS_OWN


class PolicyLoss:
    """One of our objectives in verl's form."""

    def __init__(self, kind: str):
        self.kind, self.loss = kind, loss_of(kind)

    def __call__(
        self,
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: Any = "seq-mean-token-mean",
        config: Any = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, clipped share, KL to the old policy, and 0 where verl's own gives the share at its dual clip."""
        low = config.clip_ratio_low if config.clip_ratio_low is not None else config.clip_ratio
        high = config.clip_ratio_high if config.clip_ratio_high is not None else config.clip_ratio
        own = config.get("ngrpo") or {}
        dual, aggregation = own.get("dual_clip"), own.get("policy_aggregation") or loss_agg_mode
        options = {} if dual is None else {"dual": dual}
        out = self.loss(
            log_prob, old_log_prob, advantages, response_mask, clip=(low, high), aggregation=aggregation, **options
        )
        return out.loss, out.clipped, out.kl, torch.tensor(0.0)


def _missing() -> list[str]:
    """Objectives that verl lacks, and doesn't find in its registry."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    registered = {kind: POLICY_LOSS_REGISTRY.get(kind) for kind in kinds() if kind not in VERLS_OWN}
    return [kind for kind, loss in registered.items() if not isinstance(loss, PolicyLoss) or loss.kind != kind]


def register() -> None:
    """Add the objectives that verl lacks to its registry; a second call changes nothing."""
    from verl.trainer.ppo.core_algos import register_policy_loss

    for kind in _missing():
        register_policy_loss(kind)(PolicyLoss(kind))


def check() -> None:
    """Raise UserError unless verl finds our loss under the name of every objective that it lacks."""
    if missing := _missing():
        raise UserError(f"verl doesn't use our loss of '{missing[0]}'", where="verl's policy-loss registry")
