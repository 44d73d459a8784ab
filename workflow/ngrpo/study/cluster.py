"""A SLURM cluster as the study sees it (`cluster` in slurm/site.yaml), and what each stage asks of it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ngrpo.errors import UserError
from ngrpo.study.base import Config, Id

Stage = Literal["training-data", "neighbors", "diagnostics", "train", "sample", "grade"]
NO_ACCOUNT = "none"
CHECKPOINT_MINUTES = 30.0
PRE_TERMINATION_SECONDS = 300  # how long before its limit a training gets SIGTERM at most; it watches the clock, too


class CpuNodes(Config):
    """Nodes for filtering, neighbor tables, diagnostics and grading."""

    partition: str | None = None
    """Partition; must be set before anything is submitted."""
    cpus: int = Field(8, ge=1)
    """CPUs of a neighbor table's, diagnostics or grading job."""
    memory_gb: int = Field(64, ge=1)
    """Memory of such a job, GB; diagnostics hold a base model in float32, 31 GB at 7 billion weights."""


class GpuNodes(Config):
    """Nodes for training and sampling."""

    partition: str | None = None
    """Partition; must be set before anything is submitted."""
    type: str | None = None
    """GPU type as `sinfo -o %G` shows it (gpu:TYPE:COUNT); None: any."""
    per_node: int = Field(8, ge=1)
    """GPUs of a training job on each of its nodes; a sampling job takes one."""
    cpus: int = Field(8, ge=1)
    """CPUs for each GPU of a job."""
    memory_gb: int = Field(64, ge=1)
    """Memory for each GPU of a job, GB; the optimizer's state lives in it between updates."""


class Cluster(Config):
    """Account, nodes and times of one site."""

    account: str | None = None
    """What GPU hours are booked on; the word "none" where the cluster knows no accounts."""
    cpu: CpuNodes = Field(default_factory=CpuNodes)
    """Nodes without GPUs."""
    gpu: GpuNodes = Field(default_factory=GpuNodes)
    """Nodes with GPUs."""
    walltime: int = Field(1440, ge=1)
    """Minutes of a training or sampling job; a training that needs more continues in the next job."""
    checkpoint_minutes: float = Field(CHECKPOINT_MINUTES, gt=0)
    """A training is saved at least this often: the most that a fault can cost."""
    nodes: dict[Id, int] = Field(default_factory=dict)
    """Nodes of a training, by run or by base model; 1 where nothing is said. More nodes change no result's identity."""
    tensor_parallel: dict[Id, int] = Field(default_factory=dict)
    """GPUs that share a rollout engine of a training, by run or by base model; 1 where nothing is said."""
    extra: str = ""
    """More sbatch options for every job, such as "--qos=long --constraint=nvlink"."""

    @model_validator(mode="after")
    def _saves_within_a_job(self) -> "Cluster":
        if self.walltime <= self.checkpoint_minutes:
            raise UserError(
                f"a job lasts {self.walltime} minutes and a training is saved every {self.checkpoint_minutes:g}: "
                "no job would ever save its work",
                where="slurm/site.yaml: cluster.walltime",
                do="raise walltime, or lower checkpoint_minutes",
            )
        return self

    def needs(self, stage: Stage) -> dict[str, Any]:
        """Snakemake's resources of a stage's job; those of the site that aren't set are left out."""
        on_gpu = {"train": self.gpu.per_node, "sample": 1}.get(stage, 0)
        cpus, memory, minutes = {
            "train": (self.gpu.cpus * on_gpu, self.gpu.memory_gb * on_gpu, self.walltime),
            "sample": (self.gpu.cpus, self.gpu.memory_gb, self.walltime),
            "neighbors": (self.cpu.cpus, self.cpu.memory_gb, 240),
            "diagnostics": (self.cpu.cpus, self.cpu.memory_gb, 240),
            "grade": (self.cpu.cpus, self.cpu.memory_gb, 120),
            "training-data": (2, 16, 120),
        }[stage]
        kind = f"gpu:{self.gpu.type}" if self.gpu.type else "gpu"
        signal = f"--signal=TERM@{min(PRE_TERMINATION_SECONDS, 6 * self.walltime)}" if stage == "train" else ""
        resources = {
            "slurm_account": None if self.account == NO_ACCOUNT else self.account,
            "slurm_partition": self.gpu.partition if on_gpu else self.cpu.partition,
            "gres": f"{kind}:{on_gpu}" if on_gpu else None,
            "cpus_per_task": cpus,
            "mem_mb": memory * 1000,
            "runtime": min(minutes, self.walltime),
            "checkpoint_minutes": self.checkpoint_minutes if stage == "train" else None,
            "slurm_extra": " ".join(part for part in (signal, self.extra) if part) or None,
        }
        return {name: value for name, value in resources.items() if value is not None}
