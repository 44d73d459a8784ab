"""verl's trainer with whole checkpoints, the best one by validation, a stateless data order, and our metrics.

A run is saved every so many steps, every so many minutes, when it is told to end, and when its job's time runs out; in
the last two cases it then leaves, and the next job goes on.
A step is done when its line is in metrics.jsonl; a checkpoint counts from then on. So a run killed between the two
resumes from the checkpoint before, and no step is ever logged twice or not at all.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verl.trainer.ppo.ray_trainer import RayPPOTrainer

from ngrpo.errors import UserError
from ngrpo.training.checkpoints import STOP, Checkpoints, check_lease
from ngrpo.training.save_schedule import Clock
from ngrpo.training.verl.monitor import METRICS, MetricsFile, batch_metrics, check_parity, cut_metrics, score_of

_now: dict[str, Any] = {}  # the running trainer, for the functions that verl calls without it


class Trainer(RayPPOTrainer):
    """Stock trainer; `config.trainer.ngrpo` names the run."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.run = config.trainer.ngrpo
        self.run_dir = Path(self.run.run_dir)
        self.kept = Checkpoints(self.run_dir, self.run.spec_digest)
        self.written = 0  # the step whose checkpoint is written and not yet committed
        self.clock = Clock(self.run.checkpoint_minutes * 60, self.run.ends)
        _now["trainer"] = self

    def _load_checkpoint(self):
        super()._load_checkpoint()
        cut_metrics(self.run_dir / METRICS, self.global_steps)
        self.train_dataloader.next_iter_state = None  # verl's would skip the done steps a second time
        self.train_dataloader.sampler.start = self.global_steps

    def _save_checkpoint(self):
        began = time.time()
        check_lease(self.run_dir, dict(self.run.lease))
        super()._save_checkpoint()
        self.written = self.global_steps
        self.clock.saved(began, time.time())

    def _validate(self):
        score = score_of(super()._validate())
        if self.kept.is_better(score):
            folder = self.kept.best_model(self.global_steps)
            self.actor_rollout_wg.export(str(folder), self.config.actor_rollout_ref.model.path)
            self.kept.declare_best(score, self.global_steps)
        return {"validation/score": score}

    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return (self.run_dir / STOP).exists()

    def saves_now(self) -> bool:
        """Whether this step is to be saved whatever its number; where time runs out, the run is also asked to end."""
        if self.clock.runs_out(time.time()):
            (self.run_dir / STOP).write_text("its job's time is nearly over")
        return self.stopping() or self.clock.due(time.time())

    def logged(self, step: int) -> None:
        """A step's line is written: commit its checkpoint. Raises UserError where the run was asked to end."""
        self.clock.stepped(time.time())
        if self.written != step:
            return
        self.kept.commit(step)
        if self.stopping() and step < self.total_training_steps:
            why = (self.run_dir / STOP).read_text() or "it was told to"
            raise UserError(
                f"the run ends because {why}; step {step} of {self.total_training_steps} is saved",
                where=self.run_dir,
                do="running the same command again resumes there",
            )


class CommittingMetrics(MetricsFile):
    """Metrics whose lines make checkpoints count."""

    def log(self, data: dict[str, Any], step: int) -> None:
        """Write one step's line, then commit what was saved at that step."""
        trainer = _now["trainer"]
        check_lease(trainer.run_dir, dict(trainer.run.lease))
        super().log(data, step)
        trainer.logged(step)


def save_now(stock: Callable) -> Callable:
    """verl's question whether its machine is about to be taken away: also yes when we save for another reason."""

    @functools.wraps(stock)
    def should_save(*args, **kwargs):
        return _now["trainer"].saves_now() or stock(*args, **kwargs)

    return should_save


def checked_advantage(stock: Callable) -> Callable:
    """verl's advantages, computed only where rollout and trainer agree: the last point before the update."""

    @functools.wraps(stock)
    def compute_advantage(data, *args, **kwargs):
        trainer = _now["trainer"]
        check_parity(data, trainer.run.parity_limit, trainer.global_steps)
        return stock(data, *args, **kwargs)

    return compute_advantage


def with_batch_metrics(stock: Callable) -> Callable:
    """verl's metrics of a batch, and ours."""

    @functools.wraps(stock)
    def compute_data_metrics(batch, *args, **kwargs):
        return {**stock(batch, *args, **kwargs), **batch_metrics(batch)}

    return compute_data_metrics
