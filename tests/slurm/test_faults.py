"""Faults on a real SLURM: whatever ends a training, it continues, loses at most one checkpoint interval, does no step
twice, and ends with the weights of the undisturbed run.

`make test-slurm FAULTS="scancel ray-worker"` runs only these; TIMES=3 runs each three times in a row.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from clone import EVERY, RUN, STEPS, Clone, Watch, without_times
from mini import MiniSlurm, descendants, processes

pytestmark = pytest.mark.slurm

AT = EVERY + 2  # the step at which faults strike: after a checkpoint, before the next
FULL_DISK = "no space left"
RUNNING_JOB = ("squeue", "-h", "-t", "R", "-o", "%i|%N")


def _job(clone: Clone) -> str:
    """The SLURM job that trains now."""
    lease = clone.lease()
    assert lease is not None
    return lease["job"]


def _slurm(*command: str) -> None:
    subprocess.run(command, check=True)


def _worker(clone: Clone) -> int:
    """The Ray worker that trains."""
    below = set(descendants(clone.lease()["pid"]))
    workers = [pid for pid, args in processes() if pid in below and args.startswith("ray::WorkerDict")]
    assert workers, [args for pid, args in processes() if pid in below]
    return workers[0]


def _elapsed(job: str) -> float:
    """Seconds since the job began; 0 once it is gone."""
    done = subprocess.run(("squeue", "-h", "-j", job, "-o", "%S"), capture_output=True, text=True, check=False)
    began = done.stdout.strip()
    return time.time() - datetime.fromisoformat(began).timestamp() if began else 0.0


@contextlib.contextmanager
def frozen(clone: Clone) -> Iterator[None]:
    """The training's worker stands still: its step takes as long as the block."""
    worker = _worker(clone)
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


def scancel(clone: Clone) -> None:
    """The user, or an administrator, cancels the job."""
    _slurm("scancel", _job(clone))


def sigterm(clone: Clone) -> None:
    """The warning that a cluster sends before it takes the node."""
    _slurm("scancel", "--signal=TERM", "--full", _job(clone))


def sigkill(clone: Clone) -> None:
    """Everything of the job is gone at once: out of memory, say."""
    _slurm("scancel", "--signal=KILL", "--full", _job(clone))


def time_limit(clone: Clone) -> None:
    """The job's time is over earlier than it was told, in the middle of a step."""
    job = _job(clone)
    _slurm("scontrol", "update", f"jobid={job}", "timelimit=1")
    clone.wait_for("end of its time", lambda: _elapsed(job) > 61)


def node_loss(clone: Clone) -> None:
    """The node that trains loses power; another one takes over, and it comes back later."""
    done = subprocess.run((*RUNNING_JOB, "-j", _job(clone)), capture_output=True, text=True, check=True)
    node = done.stdout.strip().split("|")[1]
    clone.slurm.lose_node(node)
    clone.lost_node = node


def ray_worker(clone: Clone) -> None:
    """One of Ray's workers dies."""
    os.kill(_worker(clone), signal.SIGKILL)


FAULTS = {f.__name__.replace("_", "-"): f for f in (scancel, sigterm, sigkill, time_limit, node_loss, ray_worker)}
ASKED = os.environ.get("FAULTS", "").split()
TIMES = int(os.environ.get("TIMES", "1"))


def wanted(name: str):
    """Skip what `FAULTS=…` doesn't name."""
    return pytest.mark.skipif(bool(ASKED) and name not in ASKED, reason="not among FAULTS")


@contextlib.contextmanager
def training(clone: Clone) -> Iterator[tuple[subprocess.Popen, Watch]]:
    """A new training through Snakemake, at the step where faults strike; what a failed test leaves of it is cleared."""
    clone.forget_run()
    process = clone.start(RUN)
    try:
        with Watch(clone) as watch:
            clone.wait_for(f"step {AT}", lambda: len(clone.metrics()) >= AT, process)
            yield process, watch
    except BaseException:
        clone.clear(process)
        raise


def assert_nothing_lost(clone: Clone, watch: Watch, reference: tuple[bytes, list[dict]]) -> None:
    """All promises at once; that there were two jobs shows that the fault was one."""
    weights, metrics = reference
    assert len(watch.jobs) >= 2, "the fault ended nothing"
    assert max(watch.lost, default=0) <= EVERY
    assert [row["step"] for row in clone.metrics()] == list(range(1, STEPS + 1))
    assert without_times(clone.metrics()) == metrics
    assert clone.weights() == weights


@pytest.mark.parametrize("time_", range(TIMES))
@pytest.mark.parametrize("name", [pytest.param(name, marks=wanted(name)) for name in FAULTS])
def test_a_training_survives(name: str, time_: int, clone: Clone, reference: tuple[bytes, list[dict]]) -> None:
    with training(clone) as (process, watch):
        with frozen(clone):
            assert EVERY <= clone.committed() < STEPS
            FAULTS[name](clone)
        assert process.wait(timeout=400) == 0, clone.output[-6000:]
    try:
        assert_nothing_lost(clone, watch, reference)
    finally:
        if clone.lost_node:
            clone.slurm.start_node(clone.lost_node)
            clone.slurm.wait_for_nodes()
            clone.lost_node = None


@wanted("kill-snakemake")
@pytest.mark.parametrize("time_", range(TIMES))
def test_a_killed_snakemake_is_started_again(time_: int, clone: Clone, reference: tuple[bytes, list[dict]]) -> None:
    with training(clone) as (process, watch):
        with frozen(clone):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            job = _job(clone)
            assert clone.snakemake(RUN) == 1  # its lock is still there, and Snakemake says how to go on
            assert "--unlock" in clone.output
            assert clone.snakemake("--unlock") == 0
            assert clone.snakemake(RUN) == 1
            assert f"jobs of an earlier Snakemake are still in the queue: {job} (train {RUN})" in clone.output
            assert clone.slurm.queue() == [job]
            _slurm("scancel", "--signal=TERM", "--full", job)  # what the message says
        clone.wait_for("end of the job", lambda: not clone.slurm.queue())
        assert len(clone.metrics()) < STEPS
        assert clone.snakemake(RUN) == 0, clone.output[-6000:]
    assert_nothing_lost(clone, watch, reference)


@wanted("full-disk")
@pytest.mark.parametrize("time_", range(TIMES))
def test_a_full_disk(time_: int, clone: Clone, reference: tuple[bytes, list[dict]]) -> None:
    clone.forget_run()
    clone.run.mkdir(parents=True)
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(clone.run)), capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.decode().strip()}")
    process = clone.start(RUN)
    try:
        with Watch(clone) as watch:
            clone.wait_for(f"step {AT}", lambda: len(clone.metrics()) >= AT, process)
            ballast, before = clone.run / "ballast", _logs(clone).lower().count(FULL_DISK)  # of earlier tests
            with frozen(clone):
                _fill(ballast)
            clone.wait_for("full disk", lambda: _logs(clone).lower().count(FULL_DISK) > before, process)
            ballast.unlink()
            assert process.wait(timeout=400) == 0, clone.output[-6000:]
        assert_nothing_lost(clone, watch, reference)
    except BaseException:
        clone.clear(process)
        raise
    finally:
        subprocess.run(("umount", "--lazy", str(clone.run)), check=False)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def _logs(clone: Clone) -> str:
    """What failed jobs said."""
    folder = clone.folder / ".snakemake" / "slurm_logs" / "rule_train"
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))


@wanted("short-walltime")
def test_time_limits_shorter_than_the_training(clone: Clone, reference: tuple[bytes, list[dict]]) -> None:
    """The trainer looks at the clock: it saves and leaves before its time is over, and the next job goes on."""
    clone.site(walltime=2, checkpoint_minutes=0.5)
    try:
        with training(clone) as (process, watch):
            with frozen(clone):
                job = _job(clone)
                clone.wait_for("long step", lambda: _elapsed(job) > 80)
            assert process.wait(timeout=400) == 0, clone.output[-6000:]
    finally:
        clone.site()
    assert "its job's time is nearly over" in _logs(clone)
    assert_nothing_lost(clone, watch, reference)
    assert watch.lost == []


@wanted("short-walltime")
def test_a_job_that_could_not_save_anything_says_so(clone: Clone) -> None:
    clone.site(walltime=2, checkpoint_minutes=1.999)
    try:
        clone.forget_run()
        assert clone.snakemake(RUN, "--retries=0") == 1
    finally:
        clone.site()
    assert "its work would be lost" in _logs(clone)
    assert clone.metrics() == []


@wanted("two-nodes")
def test_a_training_on_two_nodes(slurm: MiniSlurm, clone: Clone) -> None:
    clone.site(nodes={RUN: 2})
    try:
        clone.forget_run()
        process = clone.start(RUN)
        clone.wait_for("lease", lambda: clone.lease() is not None, process)
        done = subprocess.run((*RUNNING_JOB, "-j", _job(clone)), capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith("|gpu[1-2]")
        assert process.wait(timeout=400) == 0, clone.output[-6000:] + _logs(clone)[-6000:]
    finally:
        clone.site()
    assert [row["step"] for row in clone.metrics()] == list(range(1, STEPS + 1))
    assert max(row["parity/max"] for row in clone.metrics()) <= 1e-4
    log = (clone.run / "train.log").read_text()
    assert "world_size=2" in log or "(rank 1)" in log or log.count("==> worker-") >= 3
    deadline, own = time.monotonic() + 10, str((clone.folder / ".venv-train").resolve())
    while (left := [args for _, args in processes() if "raylet" in args and own in args]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.2)
    assert left == []  # Ray ended on both
    assert slurm.queue() == []
