"""What a user sets on Snakemake's command line or in a config file: scale, folders, and where each environment lies."""

import shlex
from pathlib import Path
from typing import Any

from pydantic import Field

from ngrpo.errors import UserError
from ngrpo.study.base import Config
from ngrpo.study.cluster import CHECKPOINT_MINUTES, Cluster, Stage
from ngrpo.study.reading import parse

DEPLOYED = "deployed"  # the environment is on PATH already: conda or a container put it there


class Environments(Config):
    """Where each rule's environment lies: a folder with bin/ngrpo (venv or conda prefix), or the word "deployed"."""

    workflow: str = ".venv"
    """Orchestration and analysis (envs/workflow.lock)."""
    train: str = ".venv-train"
    """Training and sampling (envs/train-cpu.lock, or a GPU image)."""

    def shell_functions(self) -> str:
        """Bash functions `workflow_env` and `train_env`, by which rules start a program of either environment."""
        lines = []
        for name, folder in self:
            program = '"$1"' if folder == DEPLOYED else f'{shlex.quote(folder)}/bin/"$1"'
            lines.append(f'{name}_env() {{ {program} "${{@:2}}"; }}; ')
        return "".join(lines)

    def shell_prefix(self) -> str:
        """What Snakemake puts before every shell command: strict mode and the two functions, braces doubled for it."""
        return f"set -euo pipefail; {self.shell_functions()}".replace("{", "{{").replace("}", "}}")


class Settings(Config):
    """All keys that `--config` and `--configfile` take."""

    scale: str = "toy"
    """toy, smoke or paper: the one switch between them."""
    data_folder: str | None = None
    """Folder of the user's problem files, for data sets of kind `folder`."""
    config: str = "config"
    """Folder of study.yaml and scales/."""
    tables: str = "all"
    """Which tables the report waits for: all of the scale, those of its `demo`, or one by name; it shows all."""
    results: str = "results"
    """Folder that results/{scale}/ goes into."""
    environments: Environments = Field(default_factory=Environments)
    """Where rules find their programs."""
    cluster: Cluster | None = None
    """The SLURM cluster, where jobs go to one: slurm/site.yaml, which `--profile slurm` reads."""

    @property
    def root(self) -> str:
        """results/{scale}."""
        return f"{self.results}/{self.scale}"

    def needs(self, stage: Stage) -> dict[str, Any]:
        """Snakemake's resources of a stage's job: on one machine, nothing that limits it."""
        return self.cluster.needs(stage) if self.cluster else {"checkpoint_minutes": CHECKPOINT_MINUTES}

    def layout(self, run: str, model: str) -> tuple[int, int]:
        """Nodes of a run's training, and the GPUs that share a rollout engine."""
        cluster = self.cluster or Cluster.model_construct(nodes={}, tensor_parallel={})
        given = (cluster.nodes, cluster.tensor_parallel)
        nodes, tensor_parallel = (g.get(run, g.get(model, 1)) for g in given)
        return nodes, tensor_parallel


def read_settings(config: dict) -> Settings:
    """Snakemake's config as settings. Raises UserError for an unknown key or a data folder that isn't there."""
    settings = parse(Settings, config, "--config")
    if settings.data_folder is not None and not Path(settings.data_folder).is_dir():
        raise UserError("there is no such data folder", where=f"--config data_folder={settings.data_folder}")
    return settings
