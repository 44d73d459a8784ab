# Settings, the expanded study, its spec files, and the named input functions of all stages.
import re
import sys
from pathlib import Path
from shlex import quote

PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(PROJECT / "workflow"))

from snakemake.exceptions import WorkflowError

from ngrpo.claims import needs
from ngrpo.errors import UserError, file_error
from ngrpo.files import digest, file_sha256, read_json
from ngrpo.study.contents import content_digest, imported_files
from ngrpo.study.layout import Results
from ngrpo.study.naming import DECIDE, NOTEBOOKS, unknown_word
from ngrpo.study.shown import page_digest, table_digest
from ngrpo.study.snapshot import start
from ngrpo.study.versions import VERSIONS, code_of

# A job on a cluster starts Snakemake anew. It is told where settings and configuration lie as they were when it was
# submitted (ngrpo.study.snapshot), and reads nothing else: what is edited meanwhile is for the next start.
try:
    # Snakemake reads this file before it knows its targets; a claim that is being decided may get further seeds
    DECIDING = [w.removeprefix(DECIDE) for w in sys.argv[1:] if w.startswith(DECIDE)]
    STARTED_WITH = start(
        config, looks_only=workflow.output_settings.dryrun, deciding=DECIDING
    )
    SETTINGS, STUDY = STARTED_WITH.settings, STARTED_WITH.study
    FOLDER_FILES = STARTED_WITH.folder_files()
    TABLES = STUDY.wanted(*SETTINGS.asked_tables)
    CLAIMS = needs.claim_names(STUDY)
    needs.check_claims(SETTINGS.asked_claims, STUDY)
    for name in ({*DECIDING} & {*CLAIMS}) | {*SETTINGS.asked_claims}:
        # it brings numpy and scipy, and every job reads this file
        from ngrpo.planning.sequential import claim_to_decide

        claim_to_decide(name, STUDY, SETTINGS.max_seeds)
except OSError as e:
    raise WorkflowError(str(file_error(e))) from None
except UserError as e:
    raise WorkflowError(str(e)) from None

RESULTS, BATCHES = STARTED_WITH.results, STARTED_WITH.batches
STUDY.store_specs(RESULTS)
workflow.config_settings.configfiles = []
workflow.config_settings.config_args = STARTED_WITH.config_of_jobs

# `train_env PROGRAM …` and `workflow_env PROGRAM …` start a program of that environment (see docs/environments.md),
# `with_study COMMAND …` adds the options that name the study. They are shell functions, not parameters, so that moving
# an environment or the configuration reruns nothing.
shell.prefix(SETTINGS.shell_prefix(STARTED_WITH.snapshot))


def is_rule(name, among_rules=workflow.is_rule):
    """Whether a word of the command line names a rule; where it can't be a file either, raises with the nearest name."""
    found, asked = among_rules(name), workflow.dag_settings
    # every file that a rule makes lies in a folder
    if asked and not found and "/" not in name and not Path(name).exists():
        kind = "target" if name in asked.targets else "rule"
        fits = [
            r.name for r in workflow.rules if kind == "rule" or not r.has_wildcards()
        ]
        claims = needs.claim_scales(STUDY)
        raise WorkflowError(str(unknown_word(kind, name, fits, SETTINGS.scale, claims)))
    return found


# Snakemake asks this of every target, and of the names after --until, --omit-from, --forcerun and --prioritize. Its own
# answer to a mistyped one would be that no rule makes such a file, or nothing at all.
workflow.is_rule = is_rule


def one_of(names):
    """A wildcard constraint: exactly these ids."""
    return "|".join(re.escape(n) for n in sorted(names)) or "none"


wildcard_constraints:
    notebook=one_of(NOTEBOOKS),
    dataset=one_of(STUDY.datasets),
    model=one_of(STUDY.models),
    policy=one_of(STUDY.policies),
    table_id=one_of(STUDY.neighbors),
    run=one_of(STUDY.runs),
    evaluation=one_of(STUDY.evaluations),
    table=one_of(STUDY.cells),


SPECS = STUDY.specs()
HERE = Results(Path())


def spec_of(made):
    """An input function: the spec that what lies beside this path (with wildcards, below the results) is made for."""

    def spec_file(wildcards):
        return RESULTS.spec(SPECS[str(made).format(**dict(wildcards.items()))].digest)

    return spec_file


def specs_of(benchmarks):
    """An input function: the specs of the evaluations of a policy and decoding on these benchmarks."""

    def spec_files(wildcards):
        names = [f"{wildcards.system}/{b}" for b in benchmarks]
        return [RESULTS.spec(STUDY.evaluations[name].digest) for name in names]

    return spec_files


def neighbor_file(mixer, model):
    """The neighbor table's file that a mixer needs on a model, as a list of one or none."""
    name = STUDY.neighbor_table(mixer, model)
    return [RESULTS.neighbors(name).table] if name else []


def content_of_source(wildcards):
    """The SHA-256 of the user's file that a data set of kind `folder` reads: wherever it lies, it is the same file."""
    path = FOLDER_FILES.get(wildcards.dataset)
    return file_sha256(path) if path else ""


def kept_out(wildcards):
    """The problem files that training data must not overlap with."""
    spec = STUDY.training_data[wildcards.model]
    return [RESULTS.dataset(b.id).problems for b in spec.benchmarks]


def model_version(wildcards):
    """The version of what makes a base model; of one that is the user's folder also what is in there."""
    source = STUDY.models[wildcards.model].model.source
    if source.kind != "folder":
        return VERSIONS["model"]
    folder, card = Path(source.path).expanduser(), RESULTS.model(wildcards.model).card
    if folder.is_dir():
        return f"{VERSIONS['model']} {content_digest(folder)}"
    # a folder that is gone since: what was copied stays
    copied = read_json(card).get("content", "") if card.exists() else ""
    return f"{VERSIONS['model']} {copied}"


def neighbor_model(wildcards):
    """The base model of a neighbor table."""
    return RESULTS.model(STUDY.neighbors[wildcards.table_id].model.id).folder


def run_inputs(wildcards):
    """What a training run reads beside its spec."""
    spec = STUDY.runs[wildcards.run]
    return {
        "model": RESULTS.model(spec.model.id).folder,
        "data": RESULTS.training_data(spec.data.dataset.id, spec.model.id).problems,
        "validation": RESULTS.dataset(spec.validation.id).problems,
        "neighbors": neighbor_file(spec.exploration, spec.model),
    }


# What becomes of a finished run's checkpoints, by `keep_checkpoints`.
CHECKPOINTS = {False: "drop", True: "keep"}


def nodes_of(wildcards):
    """The nodes of a run's training."""
    return SETTINGS.layout(wildcards.run, STUDY.runs[wildcards.run].model.id)[0]


def tasks_of(wildcards):
    """Tasks of a run's training, where SLURM must be told; else None."""
    return SETTINGS.tasks(nodes_of(wildcards))


def tensor_parallel_of(wildcards):
    """The GPUs that share a rollout engine of a run's training."""
    return SETTINGS.layout(wildcards.run, STUDY.runs[wildcards.run].model.id)[1]


def policy_inputs(wildcards):
    """What the evaluations of a policy and decoding read beside their specs and problems."""
    name = next(
        e for b in BATCHES if b.system == wildcards.system for e in b.evaluations
    )
    policy, mixer = (
        STUDY.evaluations[name].policy,
        STUDY.evaluations[name].decoding.mixer,
    )
    folders = {
        "run": RESULTS.run(policy.id).model,
        "policy": RESULTS.policy(policy.id).folder,
        "model": RESULTS.model(policy.id).folder,
    }
    model, base = folders[policy.type], STUDY.evaluations[name].base
    return {"model": model, "neighbors": neighbor_file(mixer, base)}


def base_of_policy(wildcards):
    """The base model of a policy that was trained elsewhere."""
    return RESULTS.model(STUDY.policies[wildcards.policy].model.id).folder


def source_option(made):
    """The command-line option that says where what was made elsewhere lies; nothing where the hub has it. A resource:
    its content is in the spec, and its place changes no result."""

    def option(wildcards):
        source = STUDY.sources.get(str(made).format(**dict(wildcards.items())))
        return f"--source {quote(source)}" if source else ""

    return option


def of_system(benchmarks, *kinds):
    """Files (samples, samples_card) of the evaluations of a policy and decoding on these benchmarks."""
    files = [RESULTS.evaluation(f"{{system}}/{b}") for b in benchmarks]
    return [getattr(each, kind) for each in files for kind in kinds]


def folder_of_problems(wildcards, input):
    """The folder that a sampling job's problems lie in."""
    return str(Path(input.problems[0]).parent)


def folder_of_samples(wildcards, output):
    """The folder that a sampling job writes to."""
    return str(Path(output[0]).parent)


def diagnostics_inputs(wildcards):
    """What a run's diagnostics are measured on beside its spec: its base model and validation problems."""
    inputs = run_inputs(wildcards)
    return {
        "model": inputs["model"],
        "problems": inputs["validation"],
        "neighbors": inputs["neighbors"],
    }


def problems_of(wildcards):
    """An evaluation's problems."""
    benchmark = STUDY.evaluations[wildcards.evaluation].benchmark
    return RESULTS.dataset(benchmark.id).problems


def grading_options(wildcards):
    """The options by which an evaluation's benchmark is graded otherwise than in the paper."""
    benchmark = STUDY.evaluations[wildcards.evaluation].benchmark.id
    return (
        STUDY.size.grading[benchmark].options()
        if benchmark in STUDY.size.grading
        else ""
    )


def asked_option(wildcards):
    """The command-line option of a data set whose problems are asked: all but the one to train on, whatever tables ask
    for today."""
    return "--asked" if wildcards.dataset != STUDY.size.training_data else ""


def archive_options(wildcards):
    """The command-line options of the archive that stands in for the hub, and of what a hub's rows must be. A resource:
    they change no result."""
    source = STUDY.datasets[wildcards.dataset].dataset.source
    given = {key: getattr(source, key, None) for key in ("mirror", "sha256")}
    return " ".join(f"--{key} {quote(value)}" for key, value in given.items() if value)


def benchmark_options(wildcards):
    """The command-line options that name the problem files to keep out."""
    return " ".join(f"--benchmark {quote(str(path))}" for path in kept_out(wildcards))


def neighbor_option(wildcards, input):
    """The command-line option that names a neighbor table, where one is needed."""
    return f"--neighbors {quote(str(input.neighbors))}" if input.neighbors else ""
