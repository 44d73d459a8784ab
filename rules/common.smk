# Settings, the expanded study, its spec files, and the named input functions of all stages.
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from snakemake.exceptions import WorkflowError

from ngrpo.slurm import before_submission
from ngrpo.errors import UserError, unknown_name
from ngrpo.files import digest
from ngrpo.study.versions import VERSIONS, fingerprint
from ngrpo.study.expand import load_study
from ngrpo.study.settings import read_settings

try:
    SETTINGS = read_settings(config)
    STUDY = load_study(Path(SETTINGS.config), SETTINGS.scale)
    FOLDER_FILES = STUDY.folder_files(SETTINGS.data_folder)
    TABLES = STUDY.wanted(SETTINGS.tables)
except UserError as e:
    raise WorkflowError(str(e)) from None

R = SETTINGS.root
STUDY.write_specs(Path(R))

# `train_env PROGRAM …` and `workflow_env PROGRAM …` start a program of that environment (see docs/environments.md).
# They are shell functions, not parameters, so that moving an environment reruns nothing.
shell.prefix(SETTINGS.environments.shell_prefix())

# Options that name the study, for stages that read all of it.
STUDY_OPTIONS = (
    f"--config {SETTINGS.config} --scale {SETTINGS.scale} --results {SETTINGS.results}"
)
DATA_FOLDER = f"--data-folder '{SETTINGS.data_folder}'" if SETTINGS.data_folder else ""


onstart:
    if SETTINGS.cluster:
        try:
            before_submission(SETTINGS.cluster)
        except UserError as e:
            raise WorkflowError(str(e)) from None


def is_rule(name, among_rules=workflow.is_rule):
    """Whether a word of the command line names a rule; where it can't be a file either, raises with the nearest name."""
    found, asked = among_rules(name), workflow.dag_settings
    if asked and not found and not re.search("[/.]", name) and not Path(name).exists():
        kind = "target" if name in asked.targets else "rule"
        fits = [
            r.name for r in workflow.rules if kind == "rule" or not r.has_wildcards()
        ]
        where = f"the command line, at scale {SETTINGS.scale}"
        raise WorkflowError(str(unknown_name(kind, name, fits, where=where)))
    return found


# Snakemake asks this of every target, and of the names after --until, --omit-from, --forcerun and --prioritize. Its own
# answer to a mistyped one would be that no rule makes such a file, or nothing at all.
workflow.is_rule = is_rule


def one_of(names):
    """A wildcard constraint: exactly these ids."""
    return "|".join(re.escape(n) for n in sorted(names)) or "none"


NOTEBOOKS = ("results", "ablations", "diagnostics", "reproducibility")


wildcard_constraints:
    notebook=one_of(NOTEBOOKS),
    dataset=one_of(STUDY.datasets),
    model=one_of(STUDY.models),
    table_id=one_of(STUDY.neighbors),
    run=one_of(STUDY.runs),
    evaluation=one_of(STUDY.evaluations),
    table=one_of(STUDY.cells),


def neighbor_file(mixer, model):
    """The neighbor table's file that a mixer needs on a model, as a list of one or none."""
    name = STUDY.neighbor_table(mixer, model)
    return [f"{R}/neighbors/{name}.safetensors"] if name else []


def base_model(spec):
    """A run's or evaluation's base model spec."""
    return spec.model if spec.type == "run" else spec


def data_file_in_folder(wildcards):
    """The user's file that a data set of kind `folder` reads, as a list of one or none."""
    return (
        [str(FOLDER_FILES[wildcards.dataset])]
        if wildcards.dataset in FOLDER_FILES
        else []
    )


def kept_out(wildcards):
    """The problem files that training data must not overlap with."""
    return [
        f"{R}/data/{b.id}.parquet"
        for b in STUDY.training_data[wildcards.model].benchmarks
    ]


def neighbor_model(wildcards):
    """The base model of a neighbor table."""
    return f"{R}/models/{STUDY.neighbors[wildcards.table_id].model.id}"


def run_inputs(wildcards):
    """What a training run reads beside its spec."""
    spec = STUDY.runs[wildcards.run]
    return {
        "model": f"{R}/models/{spec.model.id}",
        "data": f"{R}/data/{spec.data.dataset.id}.{spec.model.id}.parquet",
        "validation": f"{R}/data/{spec.validation.id}.parquet",
        "neighbors": neighbor_file(spec.exploration, spec.model),
    }


def layout_of_run(wildcards):
    """The nodes of a run's training, and the GPUs that share a rollout engine."""
    return SETTINGS.layout(wildcards.run, STUDY.runs[wildcards.run].model.id)


def sample_inputs(benchmarks):
    """An input function: what the evaluations of a policy on these benchmarks read beside their specs."""

    def inputs(wildcards):
        spec = STUDY.evaluations[f"{wildcards.system}/{benchmarks[0]}"]
        policy = (
            f"runs/{spec.policy.id}/model"
            if spec.policy.type == "run"
            else f"models/{spec.policy.id}"
        )
        return {
            "model": f"{R}/{policy}",
            "problems": [f"{R}/data/{b}.parquet" for b in benchmarks],
            "neighbors": neighbor_file(spec.decoding.mixer, base_model(spec.policy)),
        }

    return inputs


def diagnostics_inputs(wildcards):
    """What a run's diagnostics are measured on beside its spec: its base model and validation problems."""
    inputs = run_inputs(wildcards)
    return {
        "model": inputs["model"],
        "problems": inputs["validation"],
        "neighbors": inputs["neighbors"],
    }


def diagnostics_files():
    """What mixing does on each base model of the report's tables."""
    models = {c.model for t in TABLES for c in STUDY.cells[t]}
    runs = [r for r in STUDY.mixing_runs if STUDY.runs[r].model.id in models]
    return [f"{R}/diagnostics/{run}.json" for run in runs]


def shown_in_notebook(wildcards):
    """The files that a notebook shows."""
    if wildcards.notebook == "diagnostics":
        return diagnostics_files()
    return expand(f"{R}/analysis/{{table}}.parquet", table=TABLES)


def problems_of(wildcards):
    """An evaluation's problems."""
    return f"{R}/data/{STUDY.evaluations[wildcards.evaluation].benchmark.id}.parquet"


def grades_for(*tables):
    """The grades that tables' cells need."""
    return [
        f"{R}/evaluations/{e}.grades.parquet"
        for e in sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    ]


def grades_of(wildcards):
    """The grades that a table's cells need."""
    return grades_for(wildcards.table)


def claims_files(wildcards):
    """What the paper says, where the configuration folder has it."""
    names = ("claims.yaml", "paper_values.yaml")
    return [path for n in names if (path := Path(SETTINGS.config) / n).exists()]


def extra_seeds_of(wildcards):
    """The grades of the tables' trained policies with the scale's further seeds."""
    wanted = {c.evaluation for t in TABLES for c in STUDY.cells[t]}
    return [
        f"{R}/evaluations/{again}.grades.parquet"
        for e in sorted(wanted)
        for again in STUDY.extra_seeds.get(e, [])
    ]


def cells_of(wildcards):
    """A digest of a table's cells: another label or order makes the table anew."""
    return digest(
        [
            [c.label, c.model, c.benchmark, c.evaluation]
            for c in STUDY.cells[wildcards.table]
        ]
    )


def benchmark_options(wildcards):
    """The command-line options that name the problem files to keep out."""
    return " ".join(f"--benchmark '{path}'" for path in kept_out(wildcards))


def neighbor_option(wildcards, input):
    """The command-line option that names a neighbor table, where one is needed."""
    return f"--neighbors '{input.neighbors}'" if input.neighbors else ""
