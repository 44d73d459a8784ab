"""verl on a Ray of its own: started for one run, ended with it.

Ray's folder, ports and workers are this run's; two runs on one machine don't meet.
"""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ngrpo.engines import loopback
from ngrpo.errors import Unfinished, UserError
from ngrpo.scratch import Scratch, left_by, make_scratch, read_own, remove_shared_memory
from ngrpo.study.layout import RunFiles
from ngrpo.training.nodes import END_SECONDS, ray_nodes, wait_for_nodes
from ngrpo.training.verl import accelerator
from ngrpo.training.verl.recipe import Ranks


def run_verl(config: Any, run: RunFiles, ranks: Ranks, plugin: str) -> None:
    """Start Ray, run verl, end Ray; workers' output ends up in train.log.

    config: verl's, an OmegaConf. plugin: what every Ray worker calls first. Raises UserError where the run ends before
    its last step: the trainer's own, or one that names what failed.
    """
    import ray
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
    from verl.trainer.main_ppo import run_ppo

    scratch = _scratch(run)
    environment = get_ppo_ray_runtime_env()
    environment["env_vars"].update(TMPDIR=str(scratch.temporary))
    dtype = config.actor_rollout_ref.rollout.dtype
    environment["env_vars"].update(accelerator.worker_environment(ranks.devices, dtype))
    if ranks.nodes == 1:
        environment["env_vars"].update(loopback.environment())
    environment["worker_process_setup_hook"] = plugin
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ray_nodes(scratch, ranks.nodes, accelerator.ray_resources(ranks.devices)) as address:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
            for number, handler in handlers.items():
                signal.signal(number, handler)  # ray.init puts a handler of its own in SIGTERM's place, which aborts
            wait_for_nodes(ranks.nodes)
            try:
                run_ppo(config)
            finally:
                ray.shutdown()
    except ray.exceptions.RayError as error:
        _save_logs(scratch.ray, run, str(error))
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise type(cause)(str(cause)) from None
        raise Unfinished(
            f"training failed: {type(cause or error).__name__}: {_last_line(error)}",
            where=run.train_log,
            do="running the same command again resumes after the last checkpoint",
        ) from error
    finally:
        _save_logs(scratch.ray, run)
        scratch.remove()


def _scratch(run: RunFiles) -> Scratch:
    """New temporary folders for Ray, sockets and locks; those that killed trainers of this run left are removed."""
    owner = str(run.folder)
    left = list(left_by(owner))
    for old in left:
        if not (old / "r").is_symlink():
            _save_logs(old / "r", run)
    for old in left:
        shutil.rmtree(old, ignore_errors=True)
    return make_scratch(owner, "[train] ")


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no message"


def _save_logs(ray: Path, run: RunFiles, error: str = "") -> None:
    """Append the workers' output, and what ended the run, to train.log; free the shared memory that they left.

    ray: Ray's folder, in a private one; its workers have ended, or are about to.
    """
    deadline = time.monotonic() + END_SECONDS
    with open(run.train_log, "ab") as log:
        for path in sorted((ray / "session_latest" / "logs").glob("worker-*.*")):
            if path.suffix in (".out", ".err") and (text := read_own(path)):
                log.write(f"==> {path.name}\n".encode() + text)
                path.unlink()
            if (pid := path.stem.rpartition("-")[2]).isdigit():
                remove_shared_memory(int(pid), deadline)
        log.write(error.encode())
