"""A SLURM cluster as the study sees it (`cluster` in slurm/site.yaml), and what each stage asks of it."""

import math
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from ngrpo.errors import UserError
from ngrpo.study.base import Config, Id
from ngrpo.study.sbatch import KEYS, SITE_FILE, Options, as_text, sbatch_options

Stage = Literal["training-data", "neighbors", "diagnostics", "train", "sample", "grade"]
STAGES: tuple[Stage, ...] = get_args(Stage)
NO_ACCOUNT = "none"
CHECKPOINT_MINUTES = 30.0
PRE_TERMINATION_SECONDS = 300  # how long before its limit a training gets SIGTERM at most; it watches the clock, too
_MINUTES = {"training-data": 120, "neighbors": 240, "diagnostics": 240, "grade": 120}
_GRES_TYPE = re.compile(r"[a-zA-Z0-9_.]+")  # GPU types that the executor takes in --gres and --gpus


def _of_digits(value: Any) -> Any:
    """YAML reads 4090 and 2024 as numbers; an empty name is none."""
    if type(value) is int:
        return str(value)
    return None if isinstance(value, str) and not value.strip() else value


_NAMES = StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,:@/+-]*$")
_FEATURES = StringConstraints(pattern=r"^[A-Za-z0-9_(\[][A-Za-z0-9_.,:@/+&|()\[\]*!-]*$")
Name = Annotated[Annotated[str, _NAMES] | None, BeforeValidator(_of_digits)]
"""A name of the site's, or several with commas; it may be all digits. Nothing in it means anything to a shell."""
Features = Annotated[Annotated[str, _FEATURES] | None, BeforeValidator(_of_digits)]
"""As sbatch's --constraint takes them: a100&nvlink, [rack1|rack2]."""


class Terms(Config):
    """On which terms a site takes jobs; what isn't set isn't asked for."""

    account: Name = None
    """What hours are booked on; the word "none" where the cluster knows no accounts."""
    qos: Name = None
    """Quality of service (sbatch --qos)."""
    constraint: Features = None
    """Features that a node must have (sbatch --constraint)."""
    reservation: Name = None
    """A reservation to run in (sbatch --reservation)."""
    exclusive: bool | None = None
    """Whether a job takes whole nodes (sbatch --exclusive)."""
    extra: str = ""
    """More sbatch options; those that have a key here are taken for it. E.g. "--exclude=node7 --mail-type=FAIL"."""

    def options(self, where: str) -> Options:
        """All of it as sbatch's options. Raises UserError where one is given twice, and for what can't be given."""
        options = sbatch_options(self.extra, f"{where}.extra")
        for key in KEYS:
            value = getattr(self, key, None)
            if value is None or value is False:
                continue
            value = None if key == "exclusive" else value
            if options.get(key, value) != value:
                raise UserError(
                    f"{key} is given twice: {value or 'true'} and, in extra, {options[key]}",
                    where=f"{where}.{key}",
                    do="keep one of them",
                )
            options[key] = value
        return options


class Nodes(Terms):
    """Nodes of one kind; their terms count before the cluster's."""

    partition: Name = None
    """Partition; must be set before anything is submitted."""


class CpuNodes(Nodes):
    """Nodes for filtering, neighbor tables, diagnostics and grading."""

    cpus: int = Field(8, ge=1)
    """CPUs of a neighbor table's, diagnostics or grading job."""
    memory_gb: int = Field(64, ge=1)
    """Memory of such a job, GB; diagnostics hold a base model in float32, 31 GB at 7 billion weights."""


class GpuNodes(Nodes):
    """Nodes for training and sampling."""

    type: Name = None
    """GPU type as `sinfo -o %G` shows it (gpu:TYPE:COUNT); None: any."""
    request: Literal["gres", "gpus-per-node", "gpus"] = "gres"
    """The sbatch option that asks for GPUs. A type that the executor refuses in --gres goes to --gpus-per-node."""
    per_node: int = Field(8, ge=1)
    """GPUs of a training job on each of its nodes; a sampling job takes one."""
    cpus: int = Field(8, ge=1)
    """CPUs for each GPU of a job."""
    memory_gb: int = Field(64, ge=1)
    """Memory for each GPU of a job, GB; the optimizer's state lives in it between updates."""


class Cluster(Terms):
    """Account, nodes and times of one site."""

    cpu: CpuNodes = Field(default_factory=CpuNodes)
    """Nodes without GPUs."""
    gpu: GpuNodes = Field(default_factory=GpuNodes)
    """Nodes with GPUs."""
    memory: Literal["per-node", "per-cpu", "none"] = "per-node"
    """How memory is asked for: sbatch's --mem, its --mem-per-cpu, or not at all where a site gives it by itself."""
    walltime: int = Field(1440, ge=1)
    """Minutes of a training or sampling job; a training that needs more continues in the next job."""
    checkpoint_minutes: float = Field(CHECKPOINT_MINUTES, gt=0)
    """A training is saved at least this often: the most that a fault can cost."""
    nodes: dict[Id, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Nodes of a training, by run or by base model; 1 where nothing is said. More nodes change no result's identity."""
    tensor_parallel: dict[Id, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """GPUs that share a rollout engine of a training, by run or by base model; 1 where nothing is said."""

    @model_validator(mode="after")
    def _fits_itself(self) -> "Cluster":
        if self.walltime <= self.checkpoint_minutes:
            raise UserError(
                f"a job lasts {self.walltime} minutes and a training is saved every {self.checkpoint_minutes:g}: "
                "no job would ever save its work",
                where=f"{SITE_FILE}: cluster.walltime",
                do="raise walltime, or lower checkpoint_minutes",
            )
        if self.gpu.request == "gpus" and max(self.nodes.values(), default=1) > 1:
            raise UserError(
                "sbatch's --gpus counts the GPUs of all nodes together, and a training takes as many on each",
                where=f"{SITE_FILE}: cluster.gpu.request",
                do="write gpus-per-node",
            )
        for name, shared in self.tensor_parallel.items():
            if self.gpu.per_node % shared:
                raise UserError(
                    f"{self.gpu.per_node} GPUs of a node don't make engines of {shared}",
                    where=f"{SITE_FILE}: cluster.tensor_parallel.{name}",
                    do="choose a number that divides cluster.gpu.per_node",
                )
        for on_gpu in (False, True):
            self.terms(on_gpu)
        return self

    def terms(self, on_gpu: bool) -> Options:
        """sbatch's options for jobs on these nodes: the cluster's, and the nodes' own before them."""
        kind = "gpu" if on_gpu else "cpu"
        nodes = self.gpu if on_gpu else self.cpu
        common, own = self.options(f"{SITE_FILE}: cluster"), nodes.options(f"{SITE_FILE}: cluster.{kind}")
        if "partition" in common:
            raise UserError(
                "one partition for all jobs is given in extra",
                where=f"{SITE_FILE}: cluster.extra",
                do="set cluster.cpu.partition and cluster.gpu.partition",
            )
        if nodes.exclusive is False:
            common.pop("exclusive", None)
        return common | own

    def cpus(self, stage: Stage) -> int:
        """CPUs of a stage's job, on each node: its threads."""
        return {
            "train": self.gpu.cpus * self.gpu.per_node,
            "sample": self.gpu.cpus,
            "training-data": min(2, self.cpu.cpus),
        }.get(stage, self.cpu.cpus)

    def memory_gb(self, stage: Stage) -> int:
        """Memory of a stage's job, on each node, GB."""
        return {
            "train": self.gpu.memory_gb * self.gpu.per_node,
            "sample": self.gpu.memory_gb,
            "training-data": min(16, self.cpu.memory_gb),
        }.get(stage, self.cpu.memory_gb)

    def needs(self, stage: Stage) -> dict[str, Any]:
        """Snakemake's resources of a stage's job; those of the site that aren't set are left out."""
        gpus = {"train": self.gpu.per_node, "sample": 1}.get(stage, 0)
        terms = self.terms(bool(gpus))
        account, partition = terms.pop("account", None), terms.pop("partition", None)
        resources = {
            "slurm_account": None if account == NO_ACCOUNT else account,
            "slurm_partition": partition,
            "qos": terms.pop("qos", None),
            "constraint": terms.pop("constraint", None),
            "gres": terms.pop("gres", None),
            "cpus_per_task": self.cpus(stage),
            "runtime": min(_MINUTES.get(stage, self.walltime), self.walltime),
            "checkpoint_minutes": self.checkpoint_minutes if stage == "train" else None,
            **self._memory(stage),
        }
        if stage == "train":
            terms = {"signal": f"TERM@{min(PRE_TERMINATION_SECONDS, 6 * self.walltime)}", **terms}
        if gpus:
            resources |= self._gpus(gpus, terms, other_gres=resources["gres"] is not None)
        resources["slurm_extra"] = as_text(terms) or None
        return {name: value for name, value in resources.items() if value is not None}

    def _memory(self, stage: Stage) -> dict[str, int]:
        """As the site takes it; 0 is what Snakemake's SLURM executor doesn't ask for."""
        memory = self.memory_gb(stage) * 1000
        if self.memory == "per-cpu":
            return {"mem_mb_per_cpu": math.ceil(memory / self.cpus(stage)), "mem_mb": 0}
        return {"mem_mb": memory if self.memory == "per-node" else 0}

    def _gpus(self, count: int, terms: Options, other_gres: bool) -> dict[str, Any]:
        """Resources that ask for GPUs; where the executor has none for it, the option joins the terms."""
        kind, plain = self.gpu.type, not self.gpu.type or _GRES_TYPE.fullmatch(self.gpu.type)
        if self.gpu.request == "gres" and plain and not other_gres:
            return {"gres": f"gpu:{kind}:{count}" if kind else f"gpu:{count}"}
        if self.gpu.request == "gpus" and plain:
            return {"gpu": count, **({"gpu_model": kind} if kind else {})}
        terms["gpus-per-node"] = f"{kind}:{count}" if kind else str(count)
        return {}

    def tasks(self, nodes: int) -> int | None:
        """Tasks of a training on so many nodes, where the executor would otherwise ask for one on all of them."""
        asked = self.needs("train")
        return None if "gpu" in asked or "gpu" in asked.get("gres", "") else nodes
