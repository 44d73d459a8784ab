"""What is asked of SLURM before anything is submitted: does the cluster have what slurm/site.yaml names; and which jobs
of an earlier Snakemake still run in this folder.

Only SLURM's own commands are used (sinfo, squeue), in forms that Debian's 22.05 and later versions understand.
"""

import getpass
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ngrpo.errors import UserError, nearest_name
from ngrpo.study.cluster import NO_ACCOUNT, Cluster

SITE = Path("slurm/site.yaml")


@dataclass(frozen=True)
class Partition:
    """What sinfo says about a partition; a node counts if it is configured, up or not."""

    name: str
    minutes: float
    """Its longest time limit."""
    cpus: int
    """CPUs of its largest node."""
    memory_mb: int
    """Memory of its largest node."""
    gpus: dict[str, int]
    """GPU type → most on one node; GPUs without a type have the name ''."""
    nodes: int


def _slurm(*command: str) -> str:
    """A SLURM command's output. Raises UserError where SLURM isn't here or doesn't answer."""
    if shutil.which(command[0]) is None:
        raise UserError(
            f"there is no `{command[0]}` on this machine",
            where="PATH",
            do="run this on a login node of the SLURM cluster",
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`{command[0]}` fails: {done.stderr.strip()[-300:]}", where=" ".join(command))
    return done.stdout


def _minutes(limit: str) -> float:
    """A time limit as SLURM prints it ([days-]hours:minutes:seconds, infinite) in minutes."""
    if not limit[0].isdigit():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def partitions() -> dict[str, Partition]:
    """Every partition of the cluster."""
    by_name: dict[str, Partition] = {}
    for line in _slurm("sinfo", "--noheader", "--all", "--format=%R|%l|%c|%m|%G|%D").splitlines():
        name, limit, cpus, memory, gres, nodes = (part.strip() for part in line.split("|"))
        before = by_name.get(name)
        gpus = dict(before.gpus) if before else {}
        for kind, count in re.findall(r"gpu(?::([^:,(]+))??:(\d+)", gres):
            gpus[kind] = max(gpus.get(kind, 0), int(count))
        by_name[name] = Partition(
            name,
            _minutes(limit),
            max(int(cpus.rstrip("+")), before.cpus if before else 0),
            max(int(memory.rstrip("+")), before.memory_mb if before else 0),
            gpus,
            int(nodes) + (before.nodes if before else 0),
        )
    return by_name


def _named(name: str | None, key: str, known: dict[str, Partition], where: Path) -> Partition:
    listed = "; ".join(f"{p.name} ({_gpus(p)})" for _, p in sorted(known.items()))
    if not name:
        raise UserError(f"no partition is named for {key} jobs", where=f"{where}: cluster.{key}.partition",
                        do=f"name one of: {listed}")  # fmt: skip
    if name not in known:
        near = nearest_name(name, known)
        raise UserError(
            f"the cluster has no partition '{name}'",
            where=f"{where}: cluster.{key}.partition",
            do=f"did you mean '{near}'? there are: {listed}" if near else f"name one of: {listed}",
        )
    return known[name]


def _gpus(partition: Partition) -> str:
    return ", ".join(f"{n} × {kind or 'GPU'} a node" for kind, n in sorted(partition.gpus.items())) or "no GPUs"


def check_cluster(cluster: Cluster, where: Path = SITE) -> list[str]:
    """Check the site's settings against the cluster itself; nothing is submitted.

    Returns what was found, a line each. Raises UserError, naming the key, for: an account or partition that is missing
    or unknown; GPUs that the partition hasn't (type or number); a stage that asks for more CPUs, memory or time than
    any node of its partition gives; a time limit shorter than a checkpoint's interval.
    """
    if not cluster.account:
        raise UserError(
            "no account is named: jobs couldn't be booked",
            where=f"{where}: cluster.account",
            do="`sacctmgr show assoc user=$USER format=account` lists yours; write the word none where the cluster "
            "knows no accounts",
        )
    known = partitions()
    cpu = _named(cluster.cpu.partition, "cpu", known, where)
    gpu = _named(cluster.gpu.partition, "gpu", known, where)
    _check_gpus(cluster, gpu, where)
    for stage, key, partition in (("train", "gpu", gpu), ("sample", "gpu", gpu), ("grade", "cpu", cpu)):
        needs = cluster.needs(stage)
        for resource, asked, given, unit in (
            ("cpus", needs["cpus_per_task"], partition.cpus, "CPUs"),
            ("memory_gb", needs["mem_mb"] / 1000, partition.memory_mb / 1000, "GB of memory"),
        ):
            if asked > given:
                raise UserError(
                    f"a {stage} job asks for {asked:g} {unit}, and no node of partition '{partition.name}' has more "
                    f"than {given:g}",
                    where=f"{where}: cluster.{key}.{resource}",
                    do="lower it",
                )
    if cluster.walltime > gpu.minutes:
        raise UserError(
            f"jobs ask for {cluster.walltime} minutes, and partition '{gpu.name}' gives at most {gpu.minutes:.0f}",
            where=f"{where}: cluster.walltime",
            do=f"lower it to {gpu.minutes:.0f}; trainings that need more continue in the next job",
        )
    _check_account(cluster, where)
    return [
        f"account: {cluster.account}",
        f"training: {cluster.gpu.per_node} GPUs of partition '{gpu.name}' ({_gpus(gpu)}, {gpu.nodes} nodes)",
        f"sampling: 1 GPU of partition '{gpu.name}'",
        f"the rest: partition '{cpu.name}' ({cpu.nodes} nodes)",
    ]


def _check_gpus(cluster: Cluster, gpu: Partition, where: Path) -> None:
    kind, asked = cluster.gpu.type, cluster.gpu.per_node
    types = sorted(name for name in gpu.gpus if name)
    if kind and kind not in gpu.gpus:
        near = nearest_name(kind, types)
        raise UserError(
            f"partition '{gpu.name}' has no GPUs of type '{kind}'",
            where=f"{where}: cluster.gpu.type",
            do=f"did you mean '{near}'?" if near else f"it has: {_gpus(gpu)}",
        )
    most = gpu.gpus.get(kind, 0) if kind else max(gpu.gpus.values(), default=0)
    if asked > most:
        raise UserError(
            f"a training asks for {asked} GPUs a node, and no node of partition '{gpu.name}' has more than {most}",
            where=f"{where}: cluster.gpu.per_node",
            do=f"lower it to {most}" if most else "name a partition with GPUs",
        )


def _check_account(cluster: Cluster, where: Path) -> None:
    """Where the cluster keeps accounts, the named one must be the user's."""
    if cluster.account == NO_ACCOUNT or shutil.which("sacctmgr") is None:
        return
    command = ("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    accounts = {line.strip() for line in done.stdout.splitlines() if line.strip()}
    if done.returncode == 0 and accounts and cluster.account not in accounts:
        raise UserError(
            f"you have no account '{cluster.account}' on this cluster",
            where=f"{where}: cluster.account",
            do=f"yours: {', '.join(sorted(accounts))}",
        )


def orphans(folder: Path | None = None) -> dict[str, str]:
    """Jobs in the queue that an earlier Snakemake submitted from this folder: id → what it does.

    Snakemake locks its folder, so before it submits anything, all such jobs are a dead Snakemake's.
    """
    here = os.path.realpath(folder or Path.cwd())
    jobs = {}
    for line in _slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%T|%Z|%k").splitlines():
        job, state, workdir, comment = line.split("|", 3)
        ended = state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        if comment.startswith("rule_") and not ended and os.path.realpath(workdir) == here:
            jobs[job] = comment.removeprefix("rule_").replace("_wildcards_", " ")
    return jobs


def job_end() -> float | None:
    """When the time of the SLURM job that this process runs in is over (Unix seconds); None outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    if "SLURM_JOB_END_TIME" in os.environ:  # SLURM 23.11 and later
        return float(os.environ["SLURM_JOB_END_TIME"])
    ends = _slurm("squeue", "--noheader", f"--jobs={job}", "--format=%e").strip()
    return datetime.fromisoformat(ends).timestamp() if ends[:1].isdigit() else None


def before_submission(cluster: Cluster, where: Path = SITE) -> None:
    """Raise UserError where the site's settings don't fit, or a dead Snakemake's jobs still run in this folder."""
    check_cluster(cluster, where)
    left = orphans()
    if left:
        listed = "; ".join(f"{job} ({what})" for job, what in left.items())
        raise UserError(
            f"jobs of an earlier Snakemake are still in the queue: {listed}",
            where=Path.cwd(),
            do=f"wait until they end, or end them (a training saves its step first): scancel --signal=TERM --full "
            f"{' '.join(left)}; then start again",
        )
