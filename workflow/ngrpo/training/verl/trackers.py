"""A run's curves in the trackers that people use: TensorBoard, Weights & Biases, MLflow.

metrics.jsonl is the record; trackers follow it, in a thread of the process that starts the training. One that fails is
left out and said so: it costs no training. Steps that a resumed run takes again replace those of before where the
tracker can do that (TensorBoard); W&B keeps what it was told first, and MLflow gets a run of its own for every start.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

from ngrpo.background import beside
from ngrpo.errors import UserError, unknown_name
from ngrpo.files import digest
from ngrpo.study.layout import RunFiles
from ngrpo.study.run_log import read_metrics
from ngrpo.terminal import echo, quoted

EVERY = 5.0
"""Seconds between two looks at the log."""
PROJECT = "ngrpo"

Log = Callable[[Mapping[str, float], int], None]
"""Takes a step's metrics and the step."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that there isn't, or whose package this environment lacks."""
    for name in names:
        if name not in OPENERS:
            raise unknown_name("tracker", name, OPENERS, where="tracking")
        if find_spec(name) is None:
            raise UserError(
                f"tracking asks for {name}, which the training environment lacks",
                where="tracking",
                do=f"install the package {name} there, or take it out of `tracking` (slurm/site.yaml, --config)",
            )


@contextmanager
def tracked(run: RunFiles, name: str, trackers: Sequence[str]) -> Iterator[None]:
    """While the block runs, hand each step on that is logged in metrics.jsonl; those of before come first.

    name: the run's, as trackers show it.
    """
    with ExitStack() as following:
        for tracker in trackers:
            following.enter_context(beside(_follower(run, name, tracker)))
        yield


def _follower(run: RunFiles, name: str, tracker: str) -> Callable[[threading.Event], None]:
    def follow(over: threading.Event) -> None:
        done, last = 0, False
        try:
            with OPENERS[tracker](run, name) as log:
                while not last:
                    last = over.wait(EVERY if done else 0.1)  # what is logged while the run ends is handed on, too
                    for row in read_metrics(run.metrics)[done:]:
                        log({k: v for k, v in row.items() if k != "step" and v is not None}, int(row["step"]))
                        done += 1
        except Exception as error:  # noqa: BLE001  whatever a tracker's client raises, the training goes on
            echo(f"[train {name}] WARNING: {tracker} fails and gets no more of this run: {quoted(error)}")

    return follow


@contextmanager
def _tensorboard(run: RunFiles, name: str) -> Iterator[Log]:
    """The whole log in place of what TensorBoard holds of the run: it may have been killed before the last rows."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.tensorboard), purge_step=1, flush_secs=int(EVERY)) as writer:

        def log(values: Mapping[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield log


def _through_verl(tracker: str) -> Callable[[RunFiles, str], Any]:
    @contextmanager
    def opened(run: RunFiles, name: str) -> Iterator[Log]:
        from verl.utils.tracking import Tracking

        os.environ.setdefault("WANDB_RUN_ID", digest([str(run.folder.resolve()), name]))
        os.environ.setdefault("WANDB_RESUME", "allow")
        os.environ.setdefault("WANDB_DIR", str(run.folder))
        tracking = Tracking(PROJECT, name, [tracker])
        try:
            yield tracking.log
        finally:
            if tracker == "wandb":  # verl leaves this to the end of an object, which may come late
                tracking.logger[tracker].finish(exit_code=0)

    return opened


OPENERS: Mapping[str, Callable[[RunFiles, str], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _through_verl("wandb"),
    "mlflow": _through_verl("mlflow"),
}
"""What opens each tracker: a context that gives the function to log with."""
