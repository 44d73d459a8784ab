"""A real SLURM on one machine, without systemd: munge, slurmctld and one slurmd per emulated node, with fake GPUs.

Debian's packages (installed here if they are missing), as root. No accounting, no cgroups, no real GPU: what is tested
is how jobs are submitted, ended and continued. `python tests/slurm/mini.py FOLDER` starts one and leaves it running.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
DEFAULT_CONF = Path("/etc/slurm")  # the SLURM plugin drops SLURM_CONF inside a job: it finds only this one
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
GPU_TYPE = "h20"


class CannotRun(Exception):
    """This machine can't start a SLURM; the message says why."""


def _run(*command: str, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise CannotRun(f"`{' '.join(command)}` fails: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def install() -> None:
    """Install what is missing, without starting any daemon. Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("the mini-SLURM needs root: munge, slurmctld and slurmd run as it (try: sudo make test-slurm)")
    missing = [p for p in PACKAGES if subprocess.run(("dpkg", "-s", p), capture_output=True, check=False).returncode]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise CannotRun(f"there is no apt-get to install {', '.join(missing)} with: install SLURM and munge yourself")
    policy = Path("/usr/sbin/policy-rc.d")  # a package's daemon isn't started where this says 101
    ours = not policy.exists()
    try:
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _run("apt-get", "update", "-qq", env=environment)
        _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env=environment)
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait(seconds: float, what: str, ready) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise CannotRun(f"the mini-SLURM: {what} takes longer than {seconds:.0f} s")
        time.sleep(0.1)


class MiniSlurm:
    """The cluster: nodes gpu1, gpu2, … in partition `gpu`, node cpu1 in partition `cpu`; a context manager."""

    def __init__(self, folder: Path, gpu_nodes: int = 2, gpus: int = 2, cpus: int = 8, memory_mb: int = 32000):
        self.folder = folder
        self.gpus, self.cpus, self.memory_mb = gpus, cpus, memory_mb
        self.gpu_nodes = [f"gpu{i + 1}" for i in range(gpu_nodes)]
        self.nodes = [*self.gpu_nodes, "cpu1"]

    def __enter__(self) -> "MiniSlurm":
        install()
        conf = DEFAULT_CONF / "slurm.conf"
        if conf.exists() and not conf.is_symlink():
            raise CannotRun(f"this machine has a SLURM of its own ({conf}): run the suite where there is none")
        for name in ("log", "run", "state", "gpu", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        try:
            self._start_munge()
            self._configure()
            subprocess.run(("slurmctld",), check=True)
            _wait(20, "its controller", lambda: self._says("scontrol", "ping"))
            for node in self.nodes:
                self.start_node(node)
            self.wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
        for name in (*(f"slurmd.{node}" for node in self.nodes), "slurmctld", "munged"):
            self._stop(name)
        for name in ("slurm.conf", "gres.conf"):
            link = DEFAULT_CONF / name
            if link.is_symlink() and Path(os.readlink(link)).parent == self.folder:
                link.unlink()

    def clear(self) -> None:
        """End every job at once."""
        self._says("scancel", "--quiet", "--state=PENDING", "-u", "root")
        self._says("scancel", "--quiet", "--signal=KILL", "-u", "root")
        self._says("scancel", "--quiet", "-u", "root")
        with contextlib.suppress(CannotRun):
            _wait(15, "ending jobs", lambda: not self.queue())

    def queue(self) -> list[str]:
        """Ids of jobs that are pending or running."""
        done = subprocess.run(
            ("squeue", "-h", "-o", "%i", "-t", "PD,R,CG"), capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        subprocess.run(("slurmd", "-N", node), check=True)

    def wait_for_nodes(self) -> None:
        """Wait until every node takes jobs."""

        def up() -> bool:
            states = _run("sinfo", "-h", "-N", "-o", "%t").split()
            return bool(states) and all(state in ("idle", "mix", "alloc", "comp") for state in states)

        with contextlib.suppress(CannotRun):
            _wait(10, "its nodes", up)
        if not up():
            for node in self.nodes:
                self._says("scontrol", "update", f"nodename={node}", "state=resume")
        _wait(30, "its nodes", up)

    def lose_node(self, node: str) -> None:
        """The node's power fails: its slurmd and all that its jobs started are gone at once, with no word to anyone."""
        slurmd = self._pid(f"slurmd.{node}")
        stepds = [pid for pid, args in processes() if args.startswith("slurmstepd: [") and _on_node(pid, node)]
        victims = [slurmd, *(p for stepd in stepds for p in (stepd, *descendants(stepd)))]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start_munge(self) -> None:
        MUNGE_SOCKET.parent.mkdir(exist_ok=True)
        MUNGE_SOCKET.parent.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        (self.folder / "munge").chmod(0o755)
        files = {"socket": MUNGE_SOCKET, "key-file": key, "pid-file": self.folder / "run" / "munged.pid"}
        files |= {"seed-file": self.folder / "munge" / "seed", "log-file": self.folder / "log" / "munged.log"}
        _run("munged", "--force", *(f"--{name}={path}" for name, path in files.items()))

    def _configure(self) -> None:
        host, f = socket.gethostname().split(".")[0], self.folder
        control, *ports = _free_ports(1 + len(self.nodes))
        lines = f"""
            ClusterName=mini
            SlurmctldHost={host}(127.0.0.1)
            SlurmctldPort={control}
            SlurmUser=root
            SlurmdUser=root
            AuthType=auth/munge
            CryptoType=crypto/munge
            StateSaveLocation={f}/state
            SlurmdSpoolDir={f}/spool.%n
            SlurmctldPidFile={f}/run/slurmctld.pid
            SlurmdPidFile={f}/run/slurmd.%n.pid
            SlurmctldLogFile={f}/log/slurmctld.log
            SlurmdLogFile={f}/log/slurmd.%n.log
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            SelectType=select/cons_tres
            SelectTypeParameters=CR_CPU_Memory
            SchedulerType=sched/backfill
            SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
            GresTypes=gpu
            SlurmdParameters=config_overrides
            ReturnToService=2
            MpiDefault=none
            SwitchType=switch/none
            MinJobAge=7200
            SlurmdTimeout=15
            SlurmctldTimeout=10
            InactiveLimit=0
            KillWait=20
            OverTimeLimit=0
            BatchStartTimeout=20
            MessageTimeout=10
            AccountingStorageType=accounting_storage/none
            JobAcctGatherType=jobacct_gather/none""".splitlines()
        size = f"CPUs={self.cpus} RealMemory={self.memory_mb} State=UNKNOWN"
        for node, port in zip(self.nodes, ports, strict=True):
            gres = f"Gres=gpu:{GPU_TYPE}:{self.gpus}" if node in self.gpu_nodes else ""
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {gres} {size}")
        lines.append(f"PartitionName=gpu Nodes={','.join(self.gpu_nodes)} MaxTime=24:00:00 State=UP")
        lines.append("PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=24:00:00 State=UP")
        (f / "slurm.conf").write_text("\n".join(line.strip() for line in lines) + "\n")
        gres = ""
        for node in self.gpu_nodes:
            for i in range(self.gpus):
                device = f / "gpu" / f"{node}-nvidia{i}"
                if not device.exists():
                    os.mknod(device, 0o20666, os.makedev(1, 3))  # a second /dev/null
            gres += f"NodeName={node} Name=gpu Type={GPU_TYPE} File={f}/gpu/{node}-nvidia[0-{self.gpus - 1}]\n"
        (f / "gres.conf").write_text(gres)
        DEFAULT_CONF.mkdir(exist_ok=True)
        for name in ("slurm.conf", "gres.conf"):
            (DEFAULT_CONF / name).unlink(missing_ok=True)
            (DEFAULT_CONF / name).symlink_to(f / name)

    def _says(self, *command: str) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired, FileNotFoundError):
            return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
        return False

    def _pid(self, name: str) -> int:
        return int((self.folder / "run" / f"{name}.pid").read_text())

    def _stop(self, name: str) -> None:
        try:
            pid = self._pid(name)
        except (FileNotFoundError, ValueError):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(CannotRun):
                _wait(10, name, lambda: not _alive(pid))
        (self.folder / "run" / f"{name}.pid").unlink(missing_ok=True)


def processes() -> list[tuple[int, str]]:
    """Every process: id and command line."""
    listed = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            listed.append((int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
    return listed


def _on_node(stepd: int, node: str) -> bool:
    """Whether a slurmstepd works for this node: one of its children knows the node's name."""
    for pid in descendants(stepd):
        with contextlib.suppress(OSError):
            if f"SLURMD_NODENAME={node}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
    return False


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for other, _ in processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(other)
    below, todo = [], [pid]
    while todo:
        own = children.get(todo.pop(), [])
        below += own
        todo += own
    return below


if __name__ == "__main__":
    try:
        mini = MiniSlurm(Path(sys.argv[1]).resolve()).__enter__()
    except CannotRun as e:
        sys.exit(str(e))
    print(_run("sinfo"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print("Ctrl-C ends it", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        mini.__exit__()
