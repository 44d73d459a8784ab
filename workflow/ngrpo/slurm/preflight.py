"""Whether a cluster has what slurm/site.yaml names, asked before anything is submitted."""

import getpass
import shutil
import subprocess
from pathlib import Path

from ngrpo.errors import UserError, nearest_name
from ngrpo.slurm.executor import check_submission
from ngrpo.slurm.partitions import Partition, partitions
from ngrpo.slurm.squeue import memory_seconds, orphans
from ngrpo.study.cluster import NO_ACCOUNT, STAGES, Cluster
from ngrpo.study.sbatch import SITE_FILE

SITE = Path(SITE_FILE)
LONG_ENOUGH = 240  # seconds that squeue must show ended jobs: the executor's pauses grow to three minutes


def check_cluster(cluster: Cluster, where: Path = SITE) -> list[str]:
    """Check the site's settings against the cluster itself; nothing is submitted.

    Returns what was found, a line each. Raises UserError, naming the key, for: an account or partition that is missing
    or unknown; GPUs that the partition hasn't (type or number); a stage that asks for more CPUs, memory or time than
    any node of its partition gives; what the SLURM executor wouldn't submit.
    """
    for on_gpu in (False, True):
        if not cluster.terms(on_gpu).get("account"):
            raise UserError(
                "no account is named: jobs couldn't be booked",
                where=f"{where}: cluster.account",
                do="`sacctmgr show assoc user=$USER format=account` lists yours; write the word none where the cluster "
                "knows no accounts",
            )
    known = partitions()
    cpu, gpu = (_named(cluster.terms(on_gpu).get("partition"), key, known, where)
                for on_gpu, key in ((False, "cpu"), (True, "gpu")))  # fmt: skip
    _check_gpus(cluster, gpu, where)
    for stage in STAGES:
        on_gpu = stage in ("train", "sample")
        _check_size(cluster, stage, gpu if on_gpu else cpu, f"{where}: cluster.{'gpu' if on_gpu else 'cpu'}")
    if cluster.walltime > gpu.minutes:
        raise UserError(
            f"jobs ask for {cluster.walltime} minutes, and partition '{gpu.name}' gives at most {gpu.minutes:.0f}",
            where=f"{where}: cluster.walltime",
            do=f"lower it to {gpu.minutes:.0f}; trainings that need more continue in the next job",
        )
    for on_gpu in (False, True):
        _check_account(str(cluster.terms(on_gpu)["account"]), where)
    check_submission(cluster, where)
    remembers = memory_seconds()
    lines = [
        f"account: {', '.join(sorted({str(cluster.terms(on_gpu)['account']) for on_gpu in (False, True)}))}",
        f"training: {cluster.gpu.per_node} GPUs of partition '{gpu.name}' ({gpu.gpu_text()}, {gpu.nodes} nodes)",
        f"sampling: 1 GPU of partition '{gpu.name}'",
        f"the rest: partition '{cpu.name}' ({cpu.nodes} nodes)",
    ]
    if remembers is not None and remembers < LONG_ENOUGH:
        lines.append(
            f"SLURM forgets a job {remembers} s after its end (MinJobAge): what squeue no longer shows has ended"
        )
    return lines


def before_submission(cluster: Cluster, where: Path = SITE) -> list[str]:
    """What was found of the cluster, a line each.

    Raises UserError where the site's settings don't fit, or a dead Snakemake's jobs still run in this folder.
    """
    lines = check_cluster(cluster, where)
    left = orphans()
    if left:
        listed = "; ".join(f"{job} ({what})" for job, what in left.items())
        raise UserError(
            f"jobs of an earlier Snakemake are still in the queue: {listed}",
            where=Path.cwd(),
            do=f"wait until they end, or end them (a training saves its step first): scancel --signal=TERM --full "
            f"{' '.join(left)}; then start again",
        )
    return lines


def _named(name: str | None, key: str, known: dict[str, Partition], where: Path) -> Partition:
    listed = "; ".join(f"{p.name} ({p.gpu_text()})" for _, p in sorted(known.items()))
    if not name:
        raise UserError(f"no partition is named for {key} jobs", where=f"{where}: cluster.{key}.partition",
                        do=f"name one of: {listed}")  # fmt: skip
    choices = [known[one] for one in name.split(",") if one in known]
    for one in name.split(","):
        if one not in known:
            near = nearest_name(one, known)
            raise UserError(
                f"the cluster has no partition '{one}'",
                where=f"{where}: cluster.{key}.partition",
                do=f"did you mean '{near}'? there are: {listed}" if near else f"name one of: {listed}",
            )
    return choices[0] if len(choices) == 1 else _all_of(name, choices)


def _all_of(name: str, choices: list[Partition]) -> Partition:
    """Several partitions, of which SLURM takes whichever starts first: what each of them gives."""
    kinds = set.intersection(*(set(p.gpus) for p in choices))
    return Partition(
        name,
        min(p.minutes for p in choices),
        min(p.cpus for p in choices),
        min(p.memory_mb for p in choices),
        {kind: min(p.gpus[kind] for p in choices) for kind in kinds},
        sum(p.nodes for p in choices),
    )


def _check_size(cluster: Cluster, stage: str, partition: Partition, where: str) -> None:
    """One job of this stage must fit the partition's largest node."""
    for resource, asked, given, unit in (
        ("cpus", cluster.cpus(stage), partition.cpus, "CPUs"),
        ("memory_gb", cluster.memory_gb(stage), partition.memory_mb / 1000, "GB of memory"),
    ):
        if asked > given and not (resource == "memory_gb" and cluster.memory == "none"):
            raise UserError(
                f"a {stage} job asks for {asked:g} {unit}, and no node of partition '{partition.name}' has more than "
                f"{given:g}",
                where=f"{where}.{resource}",
                do="lower it",
            )


def _check_gpus(cluster: Cluster, gpu: Partition, where: Path) -> None:
    kind, asked = cluster.gpu.type, cluster.gpu.per_node
    types = sorted(name for name in gpu.gpus if name)
    if kind and kind not in gpu.gpus:
        near = nearest_name(kind, types)
        raise UserError(
            f"partition '{gpu.name}' has no GPUs of type '{kind}'",
            where=f"{where}: cluster.gpu.type",
            do=f"did you mean '{near}'?" if near else f"it has: {gpu.gpu_text()}",
        )
    most = gpu.gpus.get(kind, 0) if kind else max(gpu.gpus.values(), default=0)
    if asked > most:
        raise UserError(
            f"a training asks for {asked} GPUs a node, and no node of partition '{gpu.name}' has more than {most}",
            where=f"{where}: cluster.gpu.per_node",
            do=f"lower it to {most}" if most else "name a partition with GPUs",
        )


def _check_account(account: str, where: Path) -> None:
    """Where the cluster keeps accounts, the named one must be the user's."""
    if account == NO_ACCOUNT or shutil.which("sacctmgr") is None:
        return
    command = ("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    accounts = {line.strip() for line in done.stdout.splitlines() if line.strip()}
    if done.returncode == 0 and accounts and account.lower() not in {name.lower() for name in accounts}:
        raise UserError(
            f"you have no account '{account}' on this cluster",
            where=f"{where}: cluster.account",
            do=f"yours: {', '.join(sorted(accounts))}",
        )
