"""verl's trainer with the guards alone: it trains on no rollout whose records and log-probs don't show what was fed.

A study's run (`trainer.Trainer`) and a run of somebody's own (`own_run`) have them from here.
"""

from typing import Any

from verl.trainer.ppo import ray_trainer
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.ray_trainer import compute_advantage as stock_advantage

from ngrpo.errors import UserError
from ngrpo.statistics.mismatch import INPUT, MEAN, faults, limits_of
from ngrpo.training.verl.monitor import farthest, log_probs_not_finite, mismatch, uncompared
from ngrpo.training.verl.record_guard import RecordGuard
from ngrpo.training.verl.replacing import replaced


class GuardedTrainer(RayPPOTrainer):
    """Stock trainer, with a look at each rollout; `config.actor_rollout_ref.rollout.ngrpo` says what it must be.

    A study's `config.trainer.ngrpo.parity_limit` says how far log-probs may differ in float32.

    Replaces verl's RayPPOTrainer. Safe: it looks and changes nothing. Were it stock, the actor finds no seeds, and
    raises.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        self.records = RecordGuard(config)
        largest = (config.trainer.get("ngrpo") or {}).get("parity_limit")
        self.limits = limits_of(config.actor_rollout_ref.rollout.dtype, largest)
        self.means: list[float] = []  # how far rollout and trainer differed, in each step so far

    def fit(self) -> None:
        """verl's loop; while it runs, its advantages are computed by `checked_advantage`."""
        with replaced(ray_trainer, "compute_advantage", self.checked_advantage):
            super().fit()

    def _balance_batch(self, batch: Any, *args: Any, **kwargs: Any) -> None:
        """As stock, which reorders the batch, once its records are known to be whole and their responses'.

        Safe: it adds the responses' seeds and changes nothing. Were it stock, the actor finds no seeds, and raises.
        """
        (weights,) = set(self.actor_rollout_wg.fingerprint(self.config.actor_rollout_ref.rollout.dtype))
        self.records.examine(batch, self.global_steps, weights)
        super()._balance_batch(batch, *args, **kwargs)

    def checked_advantage(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """verl's advantages, computed only where rollout and trainer agree: the last point before the update.

        Safe: it looks at the batch and changes nothing. Were it stock, a run whose records are dropped would go on
        (tests/workflow/test_training.py).
        """
        self.check_rollout(data)
        return stock_advantage(data, *args, **kwargs)

    def check_rollout(self, data: Any) -> None:
        """Raise UserError for a batch that isn't to be trained on."""
        if what := log_probs_not_finite(data):
            self.refuse_log_probs(what)
        if self.records.mixer.replayed:
            self.check_mismatch(data)

    def refuse_log_probs(self, what: str) -> None:
        """Raise UserError for log-probs that are no finite numbers."""
        raise UserError(what, where=f"step {self.global_steps}", do="lower the learning rate, or warm up longer")

    def check_mismatch(self, batch: Any) -> None:
        """Raise UserError where rollout and trainer differ by more than rounding: something is systematically wrong."""
        values, where = mismatch(batch), f"step {self.global_steps}"
        beyond = faults(values, self.limits, self.means)
        if left := uncompared(batch):
            beyond.insert(0, f"{left} mixed inputs weren't compared with what the engine's model read")
        elif not values[INPUT] <= self.limits.inputs:
            where += f", {self.records.place(batch, self.global_steps, farthest(batch))}"
        if beyond:
            raise UserError(
                f"rollout and trainer disagree: {'; '.join(beyond)}",
                where=where,
                do="nothing of this step is trained on or saved. Look for weights that the engine didn't get, another "
                "neighbor table or temperature, or a graph that doesn't mix; limits and their sources are in "
                "docs/method.md",
            )
        self.means.append(values[MEAN])
