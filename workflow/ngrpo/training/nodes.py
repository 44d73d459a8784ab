"""Ray on one node or on all nodes of a SLURM allocation: started for one run, ended with it.

Ray's processes have a session of their own, so that a signal to the job reaches the trainer, which saves and ends them,
and not Ray under the trainer's feet. If the trainer is killed, the kernel ends Ray with it; other nodes' Ray ends with
its head, or with the allocation. A token that only this run knows keeps others on these nodes out.
"""

import contextlib
import ctypes
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ngrpo.errors import Unfinished, UserError
from ngrpo.scratch import Scratch
from ngrpo.slurm.commands import answer

JOIN_SECONDS = 180.0  # for all nodes to join
STARTED = "Ray runtime started."  # as `ray start` says it
END_SECONDS = 15.0  # for Ray to end by itself
AMD_GPUS = "ROCR_VISIBLE_DEVICES"  # SLURM sets it beside CUDA_VISIBLE_DEVICES, and verl takes both for a mistake
_NOT_OF_A_STEP = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_CLUSTER_NAME")


def other_nodes(nodes: int) -> list[str]:
    """The allocation's nodes without this one. Raises UserError where there are fewer than asked for.

    SLURM is asked: Snakemake's jobs run in a step of one task, and a step's environment may name only its own node.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise UserError(
            f"a training on {nodes} nodes needs a SLURM allocation, and this isn't one",
            where="--nodes",
            do="start it through `snakemake --profile slurm`, or inside `salloc --nodes=…`",
        )
    match = re.search(r"(?<!\w)NodeList=(\S+)", _scontrol("job", job, "--oneliner"))
    listed = match[1] if match else "none"
    this = os.environ.get("SLURMD_NODENAME", socket.gethostname().split(".")[0])
    others = [name for name in _scontrol("hostnames", listed).split() if name != this]
    if len(others) + 1 < nodes:
        raise UserError(
            f"a training on {nodes} nodes runs in an allocation of {len(others) + 1} ({listed})",
            where="--nodes",
            do="ask SLURM for as many nodes: cluster.nodes in slurm/site.yaml",
        )
    return others[: nodes - 1]


def _scontrol(*question: str) -> str:
    for command in ("scontrol", "srun"):
        if shutil.which(command) is None:
            raise UserError(
                f"a training on several nodes starts Ray through SLURM, and there is no `{command}` here",
                where="PATH",
                do="in a container: bind SLURM's commands, libraries and munge's socket into it; or train on one node",
            )
    return answer("scontrol", "show", *question)


def set_environment(nodes: int) -> None:
    """What Ray reads when it is imported, here and in every process that it starts. Raises RuntimeError after that.

    On one node all of Ray listens on the loopback address alone, as it does by itself on a laptop.
    """
    if "ray" in sys.modules:
        raise RuntimeError("Ray is imported already: it would not know this run's token")
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_gcs_server_request_timeout_seconds=f"{JOIN_SECONDS:.0f}",  # Ray's own 60 are few on a busy machine
    )
    if nodes == 1:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.pop(AMD_GPUS, None)


@contextlib.contextmanager
def ray_nodes(scratch: Scratch, nodes: int, resources: dict) -> Iterator[str]:
    """Start Ray's head here and its workers on the allocation's other nodes; yields the head's address.

    scratch: for Ray's sockets and logs. resources: num_cpus, num_gpus, resources, object_store_memory of each node;
    what isn't named is found by Ray. Raises UserError where a node doesn't start.
    """
    import ray

    others = other_nodes(nodes) if nodes > 1 else []
    ip = ray.util.get_node_ip_address()
    address = f"{ip}:{_free_port()}"
    common = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--log-style=record"]
    common += ["--min-worker-port=0", "--max-worker-port=0"]  # any free one: nodes may share a host
    for name, value in resources.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        common.append(f"--{name.replace('_', '-')}={text}")
    port = address.rpartition(":")[2]
    head = [*common, "--head", f"--port={port}", f"--node-ip-address={ip}", f"--temp-dir={scratch.ray}"]
    head += ["--include-dashboard=false", "--no-monitor"]  # the latter would scale a cloud, and listens everywhere
    with contextlib.ExitStack() as started:
        output = scratch.home / "nodes.out"
        log = started.enter_context(open(output, "ab"))
        process = started.enter_context(_session(head, log))
        _wait_for_head(process, output)
        if others:
            join = shlex.join([*common, f"--address={address}"])
            elsewhere = f'[ "$(hostname)" != {socket.gethostname()} ]'
            tidy = f"rm -rf {shlex.quote(str(scratch.root))} {shlex.quote(str(scratch.home))}"
            prepare = f"if {elsewhere}; then {scratch.made_by()} || exit 1; fi"
            # the shell outlives Ray, to tidy up after it
            work = f"trap : TERM; unset {AMD_GPUS}; {prepare}; {join}; if {elsewhere}; then {tidy}; fi"
            count = str(len(others))
            srun = ["srun", "--overlap", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
            srun += ["--cpu-bind=none", f"--nodelist={','.join(others)}", "sh", "-c", work]
            started.enter_context(_session(srun, log))
        yield address


def wait_for_nodes(nodes: int) -> None:
    """Wait until so many nodes have joined. Raises UserError where they don't."""
    import ray

    deadline = time.monotonic() + JOIN_SECONDS
    while (alive := sum(node["Alive"] for node in ray.nodes())) < nodes:
        if time.monotonic() > deadline:
            raise Unfinished(
                f"{alive} of {nodes} nodes joined Ray within {JOIN_SECONDS:.0f} s",
                where="training environment",
                do="can nodes reach each other by the address of their host names? see train.log in the run folder",
            )
        time.sleep(0.5)


@contextlib.contextmanager
def _session(command: list[str], log) -> Iterator[subprocess.Popen]:
    """Run a command as a session of its own, which ends with this block, or with this process."""
    libc = ctypes.CDLL(None)

    def end_with_this_process() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # a job's shell may have it ignored
        libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; killed outright, `ray start` would leave Ray behind

    environment = {k: v for k, v in os.environ.items() if k in _NOT_OF_A_STEP or not k.startswith(("SLURM_", "SRUN_"))}
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=end_with_this_process,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _wait_for_head(head: subprocess.Popen, output: Path) -> None:
    """Until `ray start` says that all of the head's processes run: its port is open before others can join it."""
    deadline = time.monotonic() + JOIN_SECONDS
    while STARTED not in output.read_text(errors="replace"):
        if head.poll() is not None or time.monotonic() > deadline:
            lines = output.read_text(errors="replace").strip().splitlines()
            raise Unfinished(
                f"Ray doesn't start: {lines[-1] if lines else 'it says nothing'}",
                where="training environment",
                do="is there room in the temporary folder, and memory?",
            )
        time.sleep(0.1)
