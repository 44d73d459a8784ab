"""The training stage: verl on Ray, started, watched and ended; the best checkpoint exported last.

Ray is this run's own: its folder, its ports, its workers; two runs on one machine don't meet. Workers' output goes to
train.log in the run folder, progress to stdout. SIGTERM lets the step end, saves it and leaves; a second one leaves at
once.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import digest, read_json, whole_folder, write_json
from ngrpo.hardware import hardware
from ngrpo.slurm import job_end
from ngrpo.study.specs import RunSpec
from ngrpo.training.checkpoints import STOP, Checkpoints, Lease
from ngrpo.training.nodes import ray_nodes, set_environment, wait_for_nodes
from ngrpo.training.verl import accelerator
from ngrpo.training.verl.monitor import METRICS, read_metrics
from ngrpo.training.verl.recipe import Ranks, compose, total_steps

CARD = "ngrpo.json"
HARDWARE = "hardware.json"  # in the run folder: what each of its jobs had
SAME_SIGNAL = 10.0  # seconds within which signals are one
MOST_BASE = 24  # characters of a temporary folder's path: Ray puts sockets below it, whose paths have at most 107


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
    plugin: str = "ngrpo.training.verl.plugin.install",
) -> None:
    """Train the run, from its last whole checkpoint if there is one, and write its best policy to `out`.

    model, data, validation, neighbors: what the spec names, as files. run_dir: holds spec.json, metrics and
    checkpoints. checkpoint_every: steps; checkpoint_minutes: saved at least so often, too. nodes: of this SLURM job;
    devices: ranks on each; tensor_parallel: of them to a rollout engine. plugin: what every Ray worker calls first.

    Raises UserError where another trainer holds the folder, where the job's time is too short to save anything, where
    rollout and trainer disagree, and where the run ends before its last step.
    """
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer

    set_environment()
    run_dir, model, data, validation = (p.resolve() for p in (run_dir, model, data, validation))
    label, began = f"[train {spec.id}]", time.monotonic()
    with Lease(run_dir) as lease, _orderly_end(run_dir / STOP, lease, label):
        spec_file = run_dir / "spec.json"
        if not spec_file.exists() or spec_file.read_text(encoding="utf-8") != spec.text():
            write_json(spec_file, spec.json_value())
        checkpoints = Checkpoints(run_dir, spec.digest)
        start = checkpoints.prepare()
        steps = total_steps(spec, pq.read_metadata(data).num_rows)
        ranks = Ranks(devices or accelerator.devices(), tensor_parallel, nodes)
        if start < steps:
            ends = _time_to_save(checkpoint_minutes)
            print(f"{label} {'resuming after' if start else 'starting at'} step {start} of {steps}", flush=True)
            config = compose(
                spec,
                spec_file=spec_file,
                model=model,
                data=data,
                validation=validation,
                neighbors=neighbors.resolve() if neighbors else None,
                run_dir=run_dir,
                ranks=ranks,
                save_every=checkpoint_every,
                steps=steps,
                checkpoint_minutes=checkpoint_minutes,
                ends=ends,
                lease=lease.me,
                vocabulary=AutoTokenizer.from_pretrained(model).get_vocab(),
            )
            _note_hardware(run_dir / HARDWARE, start)
            with _progress(run_dir, label, start, steps):
                _run(config, run_dir, ranks, plugin)
        best = _finish(Checkpoints(run_dir, spec.digest), steps, out)
    took = f"took {time.monotonic() - began:.0f} s" if start < steps else "were done before"
    print(f"{label} {steps} steps {took}; best at step {best['step']} (validation {best['score']:.3f})", flush=True)


def _finish(checkpoints: Checkpoints, steps: int, out: Path) -> dict:
    """Export the best policy, once every step is done and logged; returns its step and score."""
    logged = [row["step"] for row in read_metrics(checkpoints.run_dir / METRICS)]
    if checkpoints.step != steps or logged != list(range(1, steps + 1)):
        raise UserError(
            f"the run ended at step {checkpoints.step} of {steps}, with {len(logged)} steps logged",
            where=checkpoints.run_dir,
            do="see train.log there; running the same command again resumes",
        )
    best = checkpoints.best
    with whole_folder(out) as part:
        for file in checkpoints.best_model(best["step"]).iterdir():
            shutil.copy2(file, part / file.name)
        write_json(part / CARD, {"spec": checkpoints.spec, **best, "steps": steps})
    return best


def _note_hardware(path: Path, start: int) -> None:
    """Add this job to those that have trained the run: the step after which it took over, and what it has."""
    before = [job for job in (read_json(path) if path.exists() and start else []) if job["after_step"] < start]
    write_json(path, [*before, {"after_step": start, **hardware()}])


def _time_to_save(checkpoint_minutes: float) -> float | None:
    """When this job's time is over, if it is a SLURM job. Raises UserError where nothing would be saved before."""
    ends = job_end()
    if ends is not None and ends - time.time() < checkpoint_minutes * 60:
        raise UserError(
            f"this job ends in {max(0.0, ends - time.time()) / 60:.1f} minutes, and a training is saved every "
            f"{checkpoint_minutes:g}: its work would be lost",
            where="--checkpoint-minutes",
            do="ask for a longer time (cluster.walltime in slurm/site.yaml), or save more often "
            "(cluster.checkpoint_minutes)",
        )
    return ends


def _run(config, run_dir: Path, ranks: Ranks, plugin: str) -> None:
    """Start Ray, run verl, end Ray; workers' output ends up in train.log."""
    import ray
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env
    from verl.trainer.main_ppo import run_ppo

    folder = _scratch(run_dir)
    environment = get_ppo_ray_runtime_env()
    environment["env_vars"].update(accelerator.worker_environment(), TMPDIR=str(folder))
    environment["worker_process_setup_hook"] = plugin
    orderly = signal.getsignal(signal.SIGTERM)
    try:
        with ray_nodes(folder, ranks.nodes, accelerator.ray_resources(ranks.devices)) as address:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
            signal.signal(signal.SIGTERM, orderly)  # ray.init puts a handler of its own in place, which aborts
            wait_for_nodes(ranks.nodes)
            try:
                run_ppo(config)
            finally:
                ray.shutdown()
    except ray.exceptions.RayError as error:
        _keep_log(folder, run_dir, str(error))
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise UserError(
            f"training failed: {type(cause or error).__name__}: {_last_line(error)}",
            where=run_dir / "train.log",
            do="running the same command again resumes after the last checkpoint",
        ) from error
    finally:
        _keep_log(folder, run_dir)
        shutil.rmtree(folder, ignore_errors=True)


def _scratch(run_dir: Path) -> Path:
    """A new temporary folder for Ray, sockets and locks; those that killed trainers of this run left are removed."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > MOST_BASE:
        base = Path("/tmp")
    prefix = f"ngrpo-{digest(str(run_dir))[:6]}-"
    for old in base.glob(f"{prefix}*"):
        _keep_log(old, run_dir)
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=base))


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no message"


def _keep_log(folder: Path, run_dir: Path, error: str = "") -> None:
    """Append the workers' output, and what ended the run, to train.log."""
    with open(run_dir / "train.log", "ab") as log:
        for path in sorted((folder / "session_latest" / "logs").glob("worker-*.*")):
            if path.suffix in (".out", ".err") and path.stat().st_size:
                log.write(f"==> {path.name}\n".encode() + path.read_bytes())
                path.unlink()
        log.write(error.encode())


@contextlib.contextmanager
def _orderly_end(stop: Path, lease: Lease, label: str) -> Iterator[None]:
    """SIGTERM (a cluster's farewell) asks the trainer to save and end; again, or without a lease, it ends at once.

    SLURM sends each signal more than once (by itself, and through srun): only one that comes later is another.
    """
    first: list[float] = []

    def leave(number: int, frame: object) -> None:
        if lease.lost or (first and time.monotonic() - first[0] > SAME_SIGNAL):
            sys.exit(128 + number)
        if not first:
            first.append(time.monotonic())
            stop.touch()
            os.write(1, f"{label} told to end: finishing the step, then saving it\n".encode())

    stop.unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        stop.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(run_dir: Path, label: str, start: int, steps: int) -> Iterator[None]:
    """Print a line for every tenth of the steps, as metrics.jsonl grows."""
    every, stop = max(1, steps // 10), threading.Event()

    def follow() -> None:
        shown = start
        while not stop.wait(1.0):
            for row in read_metrics(run_dir / METRICS):
                if row["step"] > shown and (row["step"] % every == 0 or "validation/score" in row):
                    shown = row["step"]
                    print(_line(label, row, steps), flush=True)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _line(label: str, row: dict, steps: int) -> str:
    parts = [f"reward {row['reward/mean']:.2f}", f"length {row['response/length']:.0f}"]
    if "validation/score" in row:
        parts.append(f"validation {row['validation/score']:.3f}")
    if row["mixing/share"]:
        parts.append(f"mixed {row['mixing/share']:.0%}")
    parts += [f"parity {row['parity/max']:.0e}", f"{row['seconds/step']:.1f} s"]
    return f"{label} step {row['step']:.0f}/{steps}: {', '.join(parts)}"
