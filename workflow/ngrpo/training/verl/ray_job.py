"""verl on a Ray of its own: started for one run, ended with it.

Ray's folder, ports and workers are this run's; two runs on one machine don't meet.
"""

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from ngrpo.errors import Unfinished, UserError
from ngrpo.files import digest
from ngrpo.study.layout import RunFiles
from ngrpo.training.nodes import ray_nodes, wait_for_nodes
from ngrpo.training.verl import accelerator
from ngrpo.training.verl.recipe import Ranks

MOST_BASE = 24  # characters of a temporary folder's path: Ray puts sockets below it, whose paths have at most 107


def run_verl(config: Any, run: RunFiles, ranks: Ranks, plugin: str) -> None:
    """Start Ray, run verl, end Ray; workers' output ends up in train.log.

    config: verl's, an OmegaConf. plugin: what every Ray worker calls first. Raises UserError where the run ends before
    its last step: the trainer's own, or one that names what failed.
    """
    import ray
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
    from verl.trainer.main_ppo import run_ppo

    folder = _scratch(run)
    environment = get_ppo_ray_runtime_env()
    environment["env_vars"].update(accelerator.worker_environment(), TMPDIR=str(folder))
    environment["worker_process_setup_hook"] = plugin
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with ray_nodes(folder, ranks.nodes, accelerator.ray_resources(ranks.devices)) as address:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
            for number, handler in handlers.items():
                signal.signal(number, handler)  # ray.init puts a handler of its own in SIGTERM's place, which aborts
            wait_for_nodes(ranks.nodes)
            try:
                run_ppo(config)
            finally:
                ray.shutdown()
    except ray.exceptions.RayError as error:
        _save_logs(folder, run, str(error))
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise type(cause)(str(cause)) from None
        raise Unfinished(
            f"training failed: {type(cause or error).__name__}: {_last_line(error)}",
            where=run.train_log,
            do="running the same command again resumes after the last checkpoint",
        ) from error
    finally:
        _save_logs(folder, run)
        shutil.rmtree(folder, ignore_errors=True)


def _scratch(run: RunFiles) -> Path:
    """A new temporary folder for Ray, sockets and locks; those that killed trainers of this run left are removed."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > MOST_BASE:
        base = Path("/tmp")
    prefix = f"ngrpo-{digest(str(run.folder))[:6]}-"
    for old in base.glob(f"{prefix}*"):
        _save_logs(old, run)
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no message"


def _save_logs(folder: Path, run: RunFiles, error: str = "") -> None:
    """Append the workers' output, and what ended the run, to train.log."""
    with open(run.train_log, "ab") as log:
        for path in sorted((folder / "session_latest" / "logs").glob("worker-*.*")):
            if path.suffix in (".out", ".err") and path.stat().st_size:
                log.write(f"==> {path.name}\n".encode() + path.read_bytes())
                path.unlink()
        log.write(error.encode())
