"""The plugin: what each Ray worker of a training run changes in stock verl 0.5.0, unforked.

Ray calls `install` in every new worker process, before verl's classes are unpickled there. Each replacement is checked;
one that doesn't take is an error, not a silent stock run.

| stock | ours |
|---|---|
| workers.actor.DataParallelPPOActor | ReplayActor: feeds recorded inputs |
| workers.rollout.sglang_rollout.SGLangRollout | MixingRollout: seeds, mixers, records (set where it is built) |
| workers.fsdp_workers.ActorRolloutRefWorker | ReplayWorker: the above two, mixing statistics, export |
| trainer.ppo.ray_trainer.RayPPOTrainer | Trainer: best checkpoint, whole checkpoints, stateless data order |
| trainer.ppo.ray_trainer.{compute_advantage, compute_data_metrics, process_validation_metrics} | parity, our metrics |
| trainer.ppo.ray_trainer.should_save_ckpt_esi | also saves when the run was asked to end |
| utils.tracking.Tracking | CommittingMetrics: metrics.jsonl |
| policy-loss registry | gspo |
"""

from importlib.metadata import version
from pathlib import Path

from ngrpo.errors import UserError

VERL = "0.5.0"


def install() -> None:
    """Change this process's verl. Raises UserError for another verl."""
    if version("verl") != VERL:
        raise UserError(
            f"verl is {version('verl')}, but the plugin is written for {VERL}",
            where="training environment",
            do=f"install verl=={VERL}",
        )
    from ngrpo.training.verl import accelerator

    accelerator.patch()
    import verl.trainer.ppo.ray_trainer as ray_trainer
    import verl.utils.tracking
    import verl.workers.actor
    import verl.workers.fsdp_workers as fsdp_workers

    from ngrpo.training.verl.actor import ReplayActor
    from ngrpo.training.verl.losses import register
    from ngrpo.training.verl.monitor import validation_metrics
    from ngrpo.training.verl.replay_worker import ReplayWorker
    from ngrpo.training.verl.trainer import CommittingMetrics, Trainer, checked_advantage, save_now, with_batch_metrics

    verl.workers.actor.DataParallelPPOActor = ReplayActor
    fsdp_workers.ActorRolloutRefWorker = ReplayWorker
    verl.utils.tracking.Tracking = CommittingMetrics
    if not issubclass(ray_trainer.RayPPOTrainer, Trainer):
        ray_trainer.RayPPOTrainer = Trainer
        ray_trainer.compute_advantage = checked_advantage(ray_trainer.compute_advantage)
        ray_trainer.compute_data_metrics = with_batch_metrics(ray_trainer.compute_data_metrics)
        ray_trainer.process_validation_metrics = validation_metrics
        ray_trainer.should_save_ckpt_esi = save_now(ray_trainer.should_save_ckpt_esi)
    register()


def here(name: str) -> str:
    """The path of one of this package's modules, for verl's settings that take a file."""
    return str(Path(__file__).parent / f"{name}.py")
