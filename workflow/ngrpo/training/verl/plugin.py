"""The plugin: what each Ray worker of a training run changes in stock verl 0.5.0, unforked.

Ray calls `install` in every new worker process, before verl's classes are unpickled there. That it did, and that every
replacement took, is checked three times: by `install` itself, by `problems.Problems` (which verl builds by its
configuration, whatever is replaced) before the trainer starts, and by `ReplayWorker` in each of its processes; both of
the latter also look at what verl has built. What depends on the one trainer or rollout of a process is replaced by it,
for as long as it needs it: `Trainer.fit`, `ReplayWorker._build_rollout`, `MixingRollout`. Objectives join verl's
registry (`losses`).
"""

from importlib.metadata import version

from ngrpo.errors import UserError
from ngrpo.training.verl import accelerator, replacing
from ngrpo.training.verl.replacing import Replacement

VERL = "0.5.0"
_OURS = "ngrpo.training.verl"

_RAY_TRAINER = "verl.trainer.ppo.ray_trainer"
_WORKERS = (
    Replacement("verl.workers.actor", "DataParallelPPOActor", f"{_OURS}.actor.ReplayActor"),
    Replacement("verl.workers.fsdp_workers", "ActorRolloutRefWorker", f"{_OURS}.replay_worker.ReplayWorker"),
    Replacement(_RAY_TRAINER, "compute_data_metrics", f"{_OURS}.monitor.data_metrics"),
)
REPLACEMENTS = (
    *_WORKERS,
    Replacement(_RAY_TRAINER, "RayPPOTrainer", f"{_OURS}.trainer.Trainer"),
    Replacement("torch.distributed.rendezvous", "_create_c10d_store", "ngrpo.engines.loopback.create_store"),
    Replacement(_RAY_TRAINER, "process_validation_metrics", f"{_OURS}.monitor.validation_metrics"),
)
"""Of a study's run."""
OWN_RUN = (*_WORKERS, Replacement(_RAY_TRAINER, "RayPPOTrainer", f"{_OURS}.guarded.GuardedTrainer"))
"""Of a run of somebody's own (`own_run`), who keeps verl's loop, figures and stores."""
TASK_RUNNER = Replacement("verl.trainer.main_ppo", "RayPPOTrainer", f"{_OURS}.trainer.Trainer")
"""Where verl's task runner took its trainer from when it was imported; nothing is put there."""


_installed: tuple[Replacement, ...] = REPLACEMENTS  # what `check` expects in this process


def install(replacements: tuple[Replacement, ...] = REPLACEMENTS) -> None:
    """Change this process's verl. Raises UserError for another verl, and where a replacement doesn't take."""
    global _installed
    _installed = replacements
    if version("verl") != VERL:
        raise UserError(
            f"verl is {version('verl')}, but the plugin is written for {VERL}",
            where="training environment",
            do=f"install verl=={VERL}",
        )
    accelerator.patch()
    from ngrpo.training.verl import losses

    for replacement in replacements:
        replacement.install()
    losses.register()
    check()


def check() -> None:
    """Raise UserError naming what of the plugin didn't take in this process."""
    from ngrpo.training.verl import losses

    replacing.check((*accelerator.replacements(), *_installed))
    losses.check()


def check_task_runner() -> None:
    """The same for the process in which verl's trainer runs, after verl has been imported there."""
    check()
    replacing.check([TASK_RUNNER])
