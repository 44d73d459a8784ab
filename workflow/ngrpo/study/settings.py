"""What a user sets on Snakemake's command line or in a config file: scale, folders, and where each environment lies."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from ngrpo.errors import UserError
from ngrpo.study.base import Config, Seeds
from ngrpo.study.cluster import CHECKPOINT_MINUTES, Cluster, Stage
from ngrpo.study.reading import parse

DEPLOYED = "deployed"  # the environment is on PATH already: conda or a container put it there

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _at_home(path: str) -> str:
    """A path with its `~` replaced, as a shell does on its command line and nobody does in a file."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


Folder = Annotated[str, AfterValidator(_at_home)]


class Environments(Config):
    """Where each rule's environment lies, a folder with bin/ngrpo (venv or conda prefix) or the word "deployed"; and
    what its jobs find there.
    """

    workflow: Folder = ".venv"
    """Orchestration and analysis (envs/workflow.lock)."""
    train: Folder = ".venv-train"
    """Training and sampling (envs/train-cpu.lock, or a GPU image)."""
    setup: str = ""
    """Shell lines run before each job's command, such as "module load cuda/12.4"; one that fails ends the job."""
    scratch: str | None = None
    """Folder for temporary files, made where it isn't, best on a node's own disk; may hold $VARIABLES of the job."""
    variables: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables of every job, such as HF_HOME and TRITON_CACHE_DIR; values may hold other $VARIABLES."""

    def shell_functions(self) -> str:
        """Bash functions `workflow_env` and `train_env`, by which rules start a program of either environment."""
        lines = []
        for name, folder in (("workflow", self.workflow), ("train", self.train)):
            program = '"$1"' if folder == DEPLOYED else f'{shlex.quote(folder)}/bin/"$1"'
            where = f"environments.{name}: {folder}"
            absent = _message("this environment has no such program here", where, "make it, or name its folder")
            lines.append(f"{name}_env() {{ type {program} > /dev/null 2>&1 || {{ {absent}; return 127; }}; ")
            lines.append(f'{program} "${{@:2}}"; }}; ')
        return "".join(lines)

    def shell_setup(self) -> str:
        """Bash that prepares a job: the setup lines, variables and the temporary folder; ends the job on an error."""
        failed = _message("a job's setup fails, see above", "environments.setup, .variables, .scratch", "correct it")
        # not -u: the modules and conda scripts of many sites read variables that aren't set
        lines = [f"trap {shlex.quote(failed)} EXIT", "set -e"]
        lines += [self.setup] if self.setup.strip() else []
        for name, value in self.variables.items():
            lines += [f"export {name}={_expanding(value, f'environments.variables.{name}')}"]
        if self.scratch:
            lines += [f"export TMPDIR={_expanding(self.scratch, 'environments.scratch')}"]
            lines += ['(umask 077; mkdir -p "$TMPDIR")']
        return "\n".join([*lines, "trap - EXIT\n"]) if len(lines) > 2 else ""


def _message(what: str, where: str, do: str) -> str:
    """A command that prints a user's mistake as `ngrpo` does, so that its job isn't tried again."""
    lines = shlex.join([f"error: {what}", f"  where: {where}", f"  do:    {do}"])
    return f"printf '%s\\n' {lines} >&2"


def _expanding(value: str, key: str) -> str:
    """A value for bash: its $VARIABLES and a leading ~ expand in the job, and nothing else does."""
    if value == "~" or value.startswith("~/"):
        value = f"$HOME{value[1:]}"
    parts = []
    for text, braced, plain in re.findall(r"([^$]+)|\$\{(\w+)\}|\$(\w+)|\$", value):
        name = braced or plain
        unset = f"{name} is not set ({key})"
        parts.append(f'"${{{name}:?{unset}}}"' if name else shlex.quote(text or "$"))
    return "".join(parts)


class Settings(Config):
    """All keys that `--config` and `--configfile` take."""

    scale: str = "toy"
    """toy, pocket, smoke, single or paper: the one switch between them."""
    data_folder: Folder | None = None
    """Folder of the user's problem files, for data sets of kind `folder`."""
    config: Folder = "config"
    """Folder of study.yaml and scales/."""
    tables: str | tuple[str, ...] = "all"
    """Which tables the report waits for: all of the scale, those of its `demo`, one by name, or a list; it shows all
    that the scale makes."""
    decide: str | tuple[str, ...] = ()
    """Claims that this start may give further training seeds; those of `decide-…` targets on the command line are."""
    max_seeds: Seeds | None = None
    """Training seeds beyond which this start asks for nothing, whatever tables and claims do; for `decide-…` instead of
    the scale's `max_seeds`. None: as configured."""
    results: Folder = "results"
    """Folder that results/{scale}/ goes into."""
    environments: Environments = Field(default_factory=Environments)
    """Where rules find their programs."""
    tracking: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that get the curves of every training, beside metrics.jsonl."""
    cluster: Cluster | None = None
    """The SLURM cluster, where jobs go to one: slurm/site.yaml, which `--profile slurm` reads."""

    @property
    def root(self) -> str:
        """results/{scale}."""
        return f"{self.results}/{self.scale}"

    @property
    def asked_tables(self) -> tuple[str, ...]:
        """`tables` as a list."""
        return (self.tables,) if isinstance(self.tables, str) else self.tables

    @property
    def asked_claims(self) -> tuple[str, ...]:
        """`decide` as a list."""
        return (self.decide,) if isinstance(self.decide, str) else self.decide

    def shell_prefix(self, snapshot: Path) -> str:
        """What Snakemake puts before every shell command: setup, strict mode and functions, braces doubled for it.

        Beside those of the environments: `with_study COMMAND …` adds the options that name the study,
        `with_parameters` the same for papermill, `with_data_folder` where the user's problems lie. They are functions,
        not parameters, so that moving a folder reruns nothing. snapshot: the configuration that all jobs read.
        """
        study = {"config": str(snapshot), "scale": self.scale, "results": self.results}
        added = {
            "study": [word for key, value in study.items() for word in (f"--{key}", value)],
            "parameters": [word for key, value in study.items() for word in ("-r", key, value)],
            "data_folder": ["--data-folder", self.data_folder] if self.data_folder else [],
        }
        functions = [f'with_{name}() {{ "$@" {shlex.join(words)}; }}; ' for name, words in added.items()]
        prepared = f"{self.environments.shell_setup()}set -euo pipefail; {self.environments.shell_functions()}"
        text = f"{prepared}{''.join(functions)}"
        return text.replace("{", "{{").replace("}", "}}")

    def needs(self, stage: Stage) -> dict[str, Any]:
        """Snakemake's resources of a stage's job: on one machine, nothing that limits it."""
        return self.cluster.needs(stage) if self.cluster else {"checkpoint_minutes": CHECKPOINT_MINUTES}

    def threads(self, stage: Stage, here: int = 1) -> int:
        """Threads of a stage's job: the CPUs that it is given on a cluster, and `here` of them on one machine."""
        return self.cluster.cpus(stage) if self.cluster else here

    def tasks(self, nodes: int) -> int | None:
        """Tasks that SLURM must be asked for where a training runs on so many nodes; None: by itself one on each."""
        return self.cluster.tasks(nodes) if self.cluster else None

    def layout(self, run: str, model: str) -> tuple[int, int]:
        """Nodes of a run's training, and the GPUs that share a rollout engine."""
        cluster = self.cluster or Cluster.model_construct(nodes={}, tensor_parallel={})
        given = (cluster.nodes, cluster.tensor_parallel)
        nodes, tensor_parallel = (g.get(run, g.get(model, 1)) for g in given)
        return nodes, tensor_parallel


def read_settings(config: dict) -> Settings:
    """Snakemake's config as settings.

    Raises UserError for an unknown key, a data folder that isn't there, and a path that Snakemake would misread.
    """
    settings = parse(Settings, config, "--config")
    for key in ("results", "scale"):
        value = getattr(settings, key)
        if bad := next((c for c in value if c in "{}" or ord(c) < 32), None):
            raise UserError(
                f"Snakemake can't have {bad!r} in a path: it is part of its patterns",
                where=f"--config {key}={value}",
                do="rename the folder",
            )
    if settings.cluster and "'" in settings.results and re.search(r'[$`"\\]', settings.results):
        raise UserError(
            "Snakemake can't quote a path with both an apostrophe and one of $ ` \" \\ for a cluster's jobs",
            where=f"--config results={settings.results}",
            do="rename the folder",
        )
    if settings.data_folder is not None and not Path(settings.data_folder).is_dir():
        raise UserError("there is no such data folder", where=f"--config data_folder={settings.data_folder}")
    return settings
