"""verl's trainer with whole checkpoints, the best one by validation, a stateless data order, and our metrics.

A run is saved every so many steps, every so many minutes, when it is asked to end, and when its job's time runs out; in
the last two cases it then leaves, and the next job goes on.
A step is done when its line is in metrics.jsonl; a checkpoint counts from then on. So a run killed between the two
resumes from the checkpoint before, and no step is ever logged twice or not at all.

A run ends before its last step where nothing can be learned any more (`ngrpo.training.idle`): it validates, saves, and
is finished. It fails where a loss, a gradient, log-probs or weights are no finite numbers: nothing of that step is
committed, a checkpoint that turns out to be its cause is forgotten, and failure.json tells whoever starts it again.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import verl.utils.tracking
from verl.trainer.ppo import ray_trainer
from verl.trainer.ppo.ray_trainer import compute_advantage as stock_advantage
from verl.trainer.ppo.ray_trainer import reduce_metrics as stock_reduction
from verl.utils.checkpoint.checkpoint_manager import should_save_ckpt_esi as stock_save_question

from ngrpo.errors import Unfinished, UserError
from ngrpo.files import write_json
from ngrpo.statistics.mismatch import MEAN
from ngrpo.study.layout import RunFiles
from ngrpo.study.run_log import read_metrics
from ngrpo.training.checkpoints import Checkpoints
from ngrpo.training.idle import IdleSteps
from ngrpo.training.lease import check_lease
from ngrpo.training.save_schedule import SaveSchedule
from ngrpo.training.verl.control import drop_equal_groups, replace_rewards, shorten
from ngrpo.training.verl.guarded import GuardedTrainer
from ngrpo.training.verl.monitor import MetricsFile, score_of, update_not_finite
from ngrpo.training.verl.replacing import replaced


class Trainer(GuardedTrainer):
    """The guarded trainer as a study's; `config.trainer.ngrpo` names the run.

    Replaces verl's RayPPOTrainer. Safe: the loop is verl's own; what is overridden or replaced while it runs has a
    docstring of its own. Were it stock, metrics.jsonl would stay empty, and the task runner's check fails before.
    """

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        self.run = config.trainer.ngrpo
        self.files = RunFiles(Path(self.run.run_dir))
        self.checkpoints = Checkpoints(self.files, self.run.spec_digest)
        self.written = 0  # the step whose checkpoint is written and not yet committed
        self.schedule = SaveSchedule(self.run.checkpoint_minutes * 60, self.run.ends)
        self.last_called: dict[str, int] = {}  # what the loop calls of ours: in which step it last did
        self.idle = IdleSteps(self.run.idle_steps)
        self.no_advantage = False  # whether all advantages of this step are 0
        self.ended: str | None = None  # why this step is the last, before the planned one
        self.validated: tuple[int, dict[str, float]] = (0, {})  # the last validation's step and metrics

    def fit(self) -> None:
        """verl's loop; while it runs, the functions that it calls without the trainer are this trainer's methods.

        Safe: each calls the stock one, or takes its place. That verl does call them is checked when the first step is
        logged (`CommittingMetrics`), and that it logs to us when it loads the checkpoint, right before.
        """
        with (
            replaced(verl.utils.tracking, "Tracking", self.tracking),
            replaced(ray_trainer, "reduce_metrics", self.checked_update),
            replaced(ray_trainer, "should_save_ckpt_esi", self.saves_now),
        ):
            super().fit()

    def tracking(self, project_name: str, experiment_name: str, default_backend: Any = None, config: Any = None) -> Any:
        """In place of verl's Tracking: metrics.jsonl, whose lines make checkpoints count.

        Safe: verl only calls its `log`. Were it stock, nothing would be logged: `_load_checkpoint` raises.
        """
        self.last_called["Tracking"] = 0
        return CommittingMetrics(self, config)

    def checked_advantage(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """As the guarded trainer's, of what the run's method says in place of rewards, without what it leaves out.

        Were it stock, the first step's line would not be written.
        """
        self.last_called["compute_advantage"] = self.global_steps
        self.check_rollout(data)
        if self.run.reward != "correct":
            replace_rewards(data, self.run.reward)
        reward = data.batch["token_level_rewards"].sum(-1)  # (B,), without a penalty of length
        if self.run.overlong_share:
            shorten(data, self.run.overlong_share)
        out = stock_advantage(data, *args, **kwargs)
        if self.run.equal_groups == "drop":
            actor = self.config.actor_rollout_ref.actor
            drop_equal_groups(out, reward, (actor.get("ngrpo") or {}).get("policy_aggregation") or actor.loss_agg_mode)
        self.no_advantage = not bool(out.batch["advantages"].any())
        return out

    def refuse_log_probs(self, what: str) -> NoReturn:
        """The step before gave these log-probs: its checkpoint is forgotten, and the run fails."""
        self.checkpoints.reject(self.global_steps - 1)
        self.fail(what)

    def checked_update(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """verl's reduction of an update's metrics, which must be finite; counts steps without a policy gradient.

        Safe: it looks at the metrics and changes nothing. Were it stock, a run of NaN would go on; the first step's
        line would not be written.
        """
        self.last_called["reduce_metrics"] = self.global_steps
        if what := update_not_finite(metrics):
            self.fail(what)
        self.idle.saw(no_advantage=self.no_advantage, norm=float(np.max(metrics["actor/grad_norm"])))
        return stock_reduction(metrics)

    def fail(self, what: str) -> NoReturn:
        """End a run in which something is no finite number: write it down, and raise UserError."""
        step, good = self.global_steps, self.checkpoints.step
        check_lease(self.files, dict(self.run.lease))
        write_json(self.files.failure, {"spec": self.run.spec_digest, "step": step, "what": what})
        raise UserError(
            f"{what} at step {step}; nothing of it is saved, "
            + (f"the last good checkpoint is that of step {good}" if good else "and there is no checkpoint before it"),
            where=self.files.folder,
            do="change the method (a lower learning rate, more warm-up): the same run would come to the same",
        )

    def check_weights(self) -> None:
        """Raise UserError where a weight is NaN or infinite, before anything is made of it."""
        if bad := next(filter(None, self.actor_rollout_wg.not_finite()), ""):
            self.fail(f"the weight {bad} holds NaN or infinity")

    def saves_now(self, *args: Any, **kwargs: Any) -> bool:
        """verl's question whether its machine is about to be taken away: also yes when we save for another reason.

        Where the job's time runs out, the run is also asked to end. Safe: verl then saves after the step, as at any
        other. Were it stock, a run that is asked to end would lose its step (tests/slurm); as above, the first step's
        line would not be written.
        """
        self.last_called["should_save_ckpt_esi"] = self.global_steps
        now = time.time()
        if self.schedule.runs_out(now):
            self.files.stop.write_text("its job's time is nearly over")
        if self.idle.over and self.global_steps < self.total_training_steps:
            self.end_early()
            return True
        return self.stopping() or self.schedule.due(now) or stock_save_question(*args, **kwargs)

    def end_early(self) -> None:
        """Make this step the last: nothing can be learned any more. It is validated and saved, and no further drawn."""
        self.ended = self.idle.why
        if self.validated[0] != self.global_steps:
            self._validate()
        self.train_dataloader.sampler.steps = self.global_steps

    def _load_checkpoint(self) -> None:
        """As stock; metrics and data order go on from there. Raises UserError where the loop doesn't log to us."""
        check_called(self.last_called, {"Tracking": 0})
        super()._load_checkpoint()
        logged = read_metrics(self.files.metrics)
        self.idle = IdleSteps(self.run.idle_steps, logged)
        self.means = [row[MEAN] for row in logged if MEAN in row]
        self.train_dataloader.next_iter_state = None  # verl's would skip the done steps a second time
        self.train_dataloader.sampler.start = self.global_steps

    def _save_checkpoint(self) -> None:
        """As stock, by who still holds the run folder; it counts once the step is logged."""
        began = time.time()
        check_lease(self.files, dict(self.run.lease))
        self.check_weights()
        super()._save_checkpoint()
        self.written = self.global_steps
        self.schedule.saved(began, time.time())

    def _validate(self) -> dict[str, float]:
        """As stock; the best policy so far is exported."""
        self.check_weights()
        score = score_of(super()._validate())
        if self.checkpoints.is_better(score, self.run.validation_ties):
            folder = self.checkpoints.best_model(self.global_steps)
            self.actor_rollout_wg.export(str(folder), self.config.actor_rollout_ref.model.path)
            self.checkpoints.declare_best(score, self.global_steps)
        self.validated = (self.global_steps, {"validation/score": score})
        return self.validated[1]

    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self.files.stop.exists()

    def logged(self, step: int) -> None:
        """A step's line is written: commit its checkpoint. Raises Unfinished where the run was asked to end."""
        self.schedule.stepped(time.time())
        if self.written != step:
            return
        self.checkpoints.commit(step, self.ended)
        if self.stopping() and step < self.total_training_steps and not self.ended:
            why = self.files.stop.read_text() or "it was asked to"
            raise Unfinished(
                f"the run ends because {why}; step {step} of {self.total_training_steps} is saved",
                where=self.files.folder,
                do="running the same command again resumes there",
            )


def check_called(last_called: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raise UserError for the first of ours that verl's loop didn't call in the step in which it should have."""
    for name, step in expected.items():
        if last_called.get(name) != step:
            raise UserError(
                f"verl's training loop didn't call our {name} in step {step}: it isn't replaced there",
                where="training environment",
                do="install the versions that envs/ locks",
            )


class CommittingMetrics(MetricsFile):
    """Metrics whose lines make checkpoints count."""

    def __init__(self, trainer: Trainer, settings: Any):
        super().__init__(trainer.files, settings)
        self.trainer = trainer

    def log(self, data: dict[str, Any], step: int) -> None:
        """Write one step's line, then commit what was saved at that step.

        Raises UserError where the run folder is another's by now, and where the step went past one of our parts.
        """
        trainer = self.trainer
        ours = ("compute_advantage", "reduce_metrics", "should_save_ckpt_esi")
        check_called(trainer.last_called, dict.fromkeys(ours, step))
        check_lease(trainer.files, dict(trainer.run.lease))
        validation = trainer.validated[1] if trainer.validated[0] == step else {}
        super().log({**data, **validation}, step)
        trainer.logged(step)
