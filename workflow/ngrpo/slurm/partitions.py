"""What sinfo says about a cluster's partitions."""

import re
from dataclasses import dataclass

from ngrpo.slurm.commands import answer


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

    def gpu_text(self) -> str:
        """Its GPUs in words."""
        return ", ".join(f"{n} × {kind or 'GPU'} a node" for kind, n in sorted(self.gpus.items())) or "no GPUs"


def partitions() -> dict[str, Partition]:
    """Every partition of the cluster."""
    by_name: dict[str, Partition] = {}
    for line in answer("sinfo", "--noheader", "--all", "--format=%R|%l|%c|%m|%G|%D").splitlines():
        if line.count("|") != 5:
            continue  # with SLURM_CLUSTERS, each cluster has a line of its own
        name, limit, cpus, memory, gres, nodes = (part.strip() for part in line.split("|"))
        before = by_name.get(name)
        gpus = dict(before.gpus) if before else {}
        for kind, count in gpus_of(gres).items():
            gpus[kind] = max(gpus.get(kind, 0), count)
        by_name[name] = Partition(
            name,
            _minutes(limit),
            max(int(cpus.rstrip("+")), before.cpus if before else 0),
            max(int(memory.rstrip("+")), before.memory_mb if before else 0),
            gpus,
            int(nodes) + (before.nodes if before else 0),
        )
    return by_name


def gpus_of(gres: str) -> dict[str, int]:
    """GPU type → count, from a node's generic resources as sinfo prints them.

    E.g. `gpu:2080ti:8(S:0-1),gpu:1g.10gb:7(S:0,2),nvme:1`, `gpu:4`, `(null)`. A type may begin with a digit, be all
    digits, and hold dots and hyphens. GPUs without a type have the name ''; types are listed in parts (one for each
    socket, say), which are added up.
    """
    gpus: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = (part for part in one.strip().split(":") if part != "no_consume")
        if name != "gpu":
            continue
        count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
        kind = ":".join(rest)
        gpus[kind] = gpus.get(kind, 0) + count
    return gpus


def _minutes(limit: str) -> float:
    """A time limit as SLURM prints it ([days-]hours:minutes:seconds, infinite) in minutes."""
    if not limit[0].isdigit():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60
