"""verl's trainer with whole checkpoints, the best one by validation, a stateless data order, and our metrics."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verl.trainer.ppo.ray_trainer import RayPPOTrainer

from ngrpo.training.checkpoints import Checkpoints
from ngrpo.training.monitor import batch_metrics, check_parity, cut_metrics, score_of

_now: dict[str, Any] = {}  # the running trainer and its limit, for the functions that verl calls without them


class Trainer(RayPPOTrainer):
    """Stock trainer; `config.trainer.ngrpo` names the run."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.run = config.trainer.ngrpo
        self.kept = Checkpoints(Path(self.run.run_dir), self.run.spec_digest)
        _now.update(trainer=self, limit=self.run.parity_limit)

    def _load_checkpoint(self):
        super()._load_checkpoint()
        cut_metrics(Path(self.run.run_dir) / "metrics.jsonl", self.global_steps)
        self.train_dataloader.sampler.start = self.global_steps

    def _save_checkpoint(self):
        super()._save_checkpoint()
        # the data order follows from the step: a loader state on top of it would skip the done steps twice
        (self.kept.folder / f"global_step_{self.global_steps}" / "data.pt").unlink()
        self.kept.saved(self.global_steps)

    def _validate(self):
        score = score_of(super()._validate())
        if self.kept.is_better(score, self.global_steps):
            self.actor_rollout_wg.export(str(self.kept.best_model), self.config.actor_rollout_ref.model.path)
            self.kept.declare_best(score, self.global_steps)
        return {"validation/score": score}


def checked_advantage(stock: Callable) -> Callable:
    """verl's advantages, computed only where rollout and trainer agree: the last point before the update."""

    @functools.wraps(stock)
    def compute_advantage(data, *args, **kwargs):
        check_parity(data, _now["limit"], _now["trainer"].global_steps)
        return stock(data, *args, **kwargs)

    return compute_advantage


def with_batch_metrics(stock: Callable) -> Callable:
    """verl's metrics of a batch, and ours."""

    @functools.wraps(stock)
    def compute_data_metrics(batch, *args, **kwargs):
        return {**stock(batch, *args, **kwargs), **batch_metrics(batch)}

    return compute_data_metrics
