"""The training stage: verl on Ray, started, watched and ended; the best checkpoint exported last.

Workers' output goes to train.log in the run folder, progress to stdout. SIGTERM and Ctrl-C let the step end, save it
and leave; a second one leaves at once.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ngrpo.background import beside
from ngrpo.errors import Unfinished, UserError
from ngrpo.files import digest, file_sha256, read_json, whole_folder, write_json
from ngrpo.hardware import hardware
from ngrpo.slurm.squeue import job_end
from ngrpo.stages.weights import check_weights
from ngrpo.statistics.mismatch import MismatchLimits, limits_of, nearly_stopped
from ngrpo.study.cards import FailureCard
from ngrpo.study.layout import MODEL_CARD, Results, RunFiles
from ngrpo.study.run_log import read_metrics
from ngrpo.study.specs import RunSpec, keep_spec
from ngrpo.terminal import echo
from ngrpo.training.checkpoints import Checkpoints
from ngrpo.training.idle import same_weights, warning
from ngrpo.training.lease import Lease
from ngrpo.training.live_page import live_page
from ngrpo.training.nodes import set_environment
from ngrpo.training.verl import accelerator
from ngrpo.training.verl.ray_job import run_verl
from ngrpo.training.verl.recipe import Ranks, RunInputs, Saving, compose, total_steps
from ngrpo.training.verl.trackers import check_trackers, tracked

ENDS = (signal.SIGTERM, signal.SIGINT)
SAME_SIGNAL = 10.0  # seconds within which signals are one


def train(
    spec: RunSpec,
    *,
    model: Path,
    data: Path,
    validation: Path,
    neighbors: Path | None,
    run_dir: Path,
    out: Path,
    checkpoint_every: int = 10,
    checkpoint_minutes: float = 30.0,
    nodes: int = 1,
    devices: int | None = None,
    tensor_parallel: int = 1,
    keep_checkpoints: bool = False,
    tracking: Sequence[str] = (),
    plugin: str = "ngrpo.training.verl.plugin.install",
) -> None:
    """Train the run, from its last whole checkpoint if there is one, and write its best policy to `out`.

    model, data, validation, neighbors: what the spec names, as files. run_dir: holds spec.json, metrics and
    checkpoints. checkpoint_every: steps; checkpoint_minutes: saved at least so often, too. nodes: of this SLURM job;
    devices: ranks on each; tensor_parallel: of them to a rollout engine. keep_checkpoints: those of the finished run
    stay, too. tracking: trackers that get its curves. plugin: what every Ray worker calls first.

    Raises UserError where another trainer holds the folder, where the job's time is too short to save anything, where
    rollout and trainer disagree, where a loss, a gradient, log-probs or weights are no finite numbers (again: it has
    been so before), and where the run ends before its last step, but for one that has no gradient any more: it is
    finished early, and says so.
    """
    import pyarrow.parquet as pq

    check_trackers(tracking)
    set_environment(nodes)
    run = RunFiles(run_dir.resolve())
    inputs = RunInputs(model, data, validation, neighbors).resolved()
    label, began = f"[train {spec.id}]", time.monotonic()
    with contextlib.ExitStack() as shown, Lease(run) as lease, _orderly_end(run.stop, lease, label):
        keep_spec(spec, run.spec)
        checkpoints = Checkpoints(run, spec.digest)
        start = checkpoints.prepare(_contents(inputs))
        shown.enter_context(_shown_live(run))  # ends when the lease has
        refuse_after_failure(run, spec, start)
        steps = start if checkpoints.ended else total_steps(spec, pq.read_metadata(inputs.data).num_rows)
        ranks = Ranks(devices or accelerator.devices(), tensor_parallel, nodes)
        if start < steps:
            saving = Saving(checkpoint_every, checkpoint_minutes, _time_to_save(checkpoint_minutes))
            _say_start(spec, label, start, steps)
            config = compose(spec, inputs, run, ranks=ranks, saving=saving, steps=steps, lease=lease.holder)
            _note_hardware(run.hardware, start)
            limits = limits_of(config.actor_rollout_ref.rollout.dtype, spec.training.parity_limit)
            watched = limits if spec.exploration.replayed else None
            with tracked(run, spec.id, tracking), _progress(run, label, start, steps, watched):
                run_verl(config, run, ranks, plugin)
        checkpoints = Checkpoints(run, spec.digest)
        best = _finish(checkpoints, steps, inputs.model, out)
        if not keep_checkpoints:
            checkpoints.finish(out)
    took = f"took {time.monotonic() - began:.0f} s" if start < steps else "were done before"
    _say_end(label, best, took)


def _contents(inputs: RunInputs) -> dict[str, str]:
    """What identifies the content of a run's base model, data and validation problems."""
    card = inputs.model / MODEL_CARD
    made = read_json(card) if card.exists() else {}
    return {
        "base model": digest([made.get("origin", ""), made.get("content", "")]),
        "training data": file_sha256(inputs.data),
        "validation problems": file_sha256(inputs.validation),
    }


def refuse_after_failure(run: RunFiles, spec: RunSpec, start: int) -> None:
    """Raise UserError where this spec's run has met something that is no finite number: it would again."""
    failure: FailureCard | None = read_json(run.failure, FailureCard) if run.failure.exists() else None
    if failure is not None and failure["spec"] == spec.digest:
        raise UserError(
            f"this run was stopped at step {failure['step']}: {failure['what']}; trained on from step {start}, it "
            "would come to the same",
            where=run.failure,
            do="change its method (a lower learning rate, more warm-up); to try again all the same, delete this file",
        )
    run.failure.unlink(missing_ok=True)


def _finish(checkpoints: Checkpoints, steps: int, base: Path, out: Path) -> dict:
    """Export the best policy, once every step is done and logged; returns what its card says of it."""
    run, best = checkpoints.run, checkpoints.best
    if checkpoints.ended:
        steps = checkpoints.step
    logged = [row["step"] for row in read_metrics(run.metrics)]
    if checkpoints.step != steps or best is None or logged != list(range(1, steps + 1)):
        raise Unfinished(
            f"the run ended at step {checkpoints.step} of {steps}, with {len(logged)} steps logged",
            where=run.folder,
            do="see train.log there; running the same command again resumes",
        )
    folder = checkpoints.best_model(best["step"])
    said = {**best, "steps": steps, "equals_base": same_weights(folder, base)}
    said |= {"ended": checkpoints.ended} if checkpoints.ended else {}
    with whole_folder(out) as part:
        for file in folder.iterdir():
            shutil.copy2(file, part / file.name)
        check_weights(part, folder)
        write_json(part / MODEL_CARD, {"spec": checkpoints.spec, **said})
    return said


def _say_start(spec: RunSpec, label: str, start: int, steps: int) -> None:
    echo(f"{label} {'resuming after' if start else 'starting at'} step {start} of {steps}")
    warm = spec.training.warmup_steps
    if warm >= steps:
        echo(f"{label} WARNING: the learning rate never gets to its value (warmup_steps: {warm}, steps: {steps})")


def _say_end(label: str, best: dict, took: str) -> None:
    if best.get("ended"):
        echo(f"{label} it ended early: {best['ended']}")
    if best["equals_base"]:
        echo(f"{label} its weights are the base model's, to the last bit: it has learned nothing")
    echo(f"{label} {best['steps']} steps {took}; best at step {best['step']} (validation {best['score']:.3f})")


def _note_hardware(path: Path, start: int) -> None:
    """Add this job to those that have trained the run: the step after which it took over, and what it has."""
    before = [job for job in (read_json(path) if path.exists() and start else []) if job["after_step"] < start]
    write_json(path, [*before, {"after_step": start, **hardware()}])


def _shown_live(run: RunFiles) -> contextlib.AbstractContextManager[None]:
    """Keeps the live page of the study that a run folder lies in; of one that lies elsewhere there is none."""
    results = Results(run.folder.parent.parent)
    inside = results.run(run.folder.name).folder == run.folder
    return live_page(results) if inside else contextlib.nullcontext()


def _time_to_save(checkpoint_minutes: float) -> float | None:
    """When this job's time is over, if it is a SLURM job and that can be known.

    Raises UserError where nothing would be saved before.
    """
    try:
        ends = job_end()
    except UserError as unknown:
        echo(
            f"[train] the end of this job's time isn't known ({unknown.what}): the run is saved every "
            f"{checkpoint_minutes:g} minutes, and when SLURM announces the end",
        )
        return None
    if ends is not None and ends - time.time() < checkpoint_minutes * 60:
        raise UserError(
            f"this job ends in {max(0.0, ends - time.time()) / 60:.1f} minutes, and a training is saved every "
            f"{checkpoint_minutes:g}: its work would be lost",
            where="--checkpoint-minutes",
            do="ask for a longer time (cluster.walltime in slurm/site.yaml), or save more often "
            "(cluster.checkpoint_minutes)",
        )
    return ends


@contextlib.contextmanager
def _orderly_end(stop: Path, lease: Lease, label: str) -> Iterator[None]:
    """SIGTERM (before a job is over) or Ctrl-C asks the trainer to save and end; again, or without a lease: it ends.

    SLURM sends each signal more than once (by itself, and through srun): only one that comes later is another.
    """
    first: list[float] = []

    def leave(number: int, frame: object) -> None:
        if lease.lost or (first and time.monotonic() - first[0] > SAME_SIGNAL):
            sys.exit(128 + number)
        if not first:
            first.append(time.monotonic())
            stop.touch()
            os.write(
                1,
                f"{label} asked to end: finishing the step, then saving it; asked again, it leaves at once\n".encode(),
            )

    stop.unlink(missing_ok=True)
    before = [signal.signal(number, leave) for number in ENDS]
    try:
        yield
    finally:
        for number, handler in zip(ENDS, before, strict=True):
            signal.signal(number, handler)
        stop.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(run: RunFiles, label: str, start: int, steps: int, limits: MismatchLimits | None) -> Iterator[None]:
    """Print a line for every tenth of the steps, as metrics.jsonl grows, and the first warning of each kind.

    limits: of how far rollout and trainer may differ; None: they needn't agree.
    """
    every = max(1, steps // 10)

    def follow(over: threading.Event) -> None:
        shown, warned = start, set[str]()
        while not over.wait(1.0):
            for row in read_metrics(run.metrics):
                said = {"idle": warning(row), "mismatch": nearly_stopped(row, limits)}
                for kind in [k for k, what in said.items() if what and k not in warned and row["step"] > start]:
                    warned.add(kind)
                    echo(f"{label} WARNING, step {row['step']:.0f}: {said[kind]}")
                if row["step"] > shown and (row["step"] % every == 0 or "validation/score" in row):
                    shown = row["step"]
                    echo(_line(label, row, steps))

    with beside(follow):
        yield


def _line(label: str, row: dict, steps: int) -> str:
    parts = [f"reward {row['reward/mean']:.2f}", f"length {row['response/length']:.0f}"]
    if "validation/score" in row:
        parts.append(f"validation {row['validation/score']:.3f}")
    if row["mixing/share"]:
        parts.append(f"mixed {row['mixing/share']:.0%}")
    parts += [f"parity {row['parity/max']:.0e}", f"{row['seconds/step']:.1f} s"]
    return f"{label} step {row['step']:.0f}/{steps}: {', '.join(parts)}"
