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


def diagnostics_files():
    """What mixing does on each base model of the report's tables."""
    models = {c.model for t in TABLES for c in STUDY.cells[t]}
    runs = [r for r in STUDY.mixing_runs if STUDY.runs[r].model.id in models]
    return [RESULTS.diagnostics(run) for run in runs]


def shown_in_notebook(wildcards):
    """The files that a notebook shows."""
    if wildcards.notebook == "diagnostics":
        return diagnostics_files()
    return [RESULTS.table(table) for table in TABLES]


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


def grades_for(*tables):
    """The grades that tables' cells need."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    return [RESULTS.evaluation(e).grades for e in wanted]


def grades_of(wildcards):
    """The grades that a table is computed from: its differences are over all training seeds."""
    return [*grades_for(wildcards.table), *extra_grades_for(wildcards.table)]


def evidence_on(claim):
    """The input function of a claim's target: what its verdict needs."""

    def files(wildcards):
        try:
            files = needs.claim_files(claim, STUDY, most=SETTINGS.max_seeds)
            return [RESULTS.root / path for path in files]
        except UserError as e:
            raise WorkflowError(str(e)) from None

    return files


def evidence_at(wildcards):
    """What a claim's verdict needs with so many training seeds."""
    number = int(wildcards.seeds)
    try:
        return [
            RESULTS.root / path
            for path in needs.claim_files(wildcards.claim, STUDY, number=number)
        ]
    except UserError as e:
        raise WorkflowError(str(e)) from None


def last_look(claim):
    """The input function of the target that decides a claim: its looks, one after the other, until it is over."""

    def decisions(wildcards):
        # it brings numpy and scipy, and every job reads this file
        from ngrpo.planning.sequential import planned_looks

        try:
            numbers = planned_looks(
                claim, STARTED_WITH.asked, RESULTS, SETTINGS.max_seeds
            )
        except UserError as e:
            raise WorkflowError(str(e)) from None
        looks = []
        for number in numbers:
            look = checkpoints.decide.get(claim=claim, seeds=str(number)).output[0]
            looks.append(look)
            if read_json(look)["over"]:
                break
        return looks

    return decisions


# The greatest number of training seeds, as an option of `ngrpo decide`.
MOST_SEEDS = f"--max-seeds {SETTINGS.max_seeds}" if SETTINGS.max_seeds else ""


def extra_grades_for(*tables):
    """The grades of tables' trained policies with their further training seeds."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    most = SETTINGS.max_seeds
    grades = [
        e for e in wanted for e in STUDY.extra_seeds.get(e, [])[: most and most - 1]
    ]
    return [RESULTS.evaluation(e).grades for e in grades]


def extra_seeds_for(*tables):
    """What tables' trained policies leave with their further training seeds: grades, and runs asked for their logs."""
    wanted = sorted({c.evaluation for t in tables for c in STUDY.cells[t]})
    trained = dict.fromkeys(
        STUDY.evaluations[e].policy.id for e in wanted if e in STUDY.measured
    )
    most = SETTINGS.max_seeds
    runs = [
        r for r in trained for r in STUDY.extra_runs.get(r, [])[: most and most - 1]
    ]
    return [*extra_grades_for(*tables), *(RESULTS.run(r).model for r in runs)]


def extra_seeds_of(wildcards):
    """The same, of all tables that are asked for."""
    return extra_seeds_for(*TABLES)


def shown_in_table(wildcards):
    """What a table shows of the configuration: another label or k makes it anew."""
    return table_digest(STARTED_WITH.asked, wildcards.table)


def shown_on_page(wildcards):
    """What the report or a notebook shows of the configuration, titles included."""
    notebook = dict(wildcards.items()).get("notebook", "reproducibility")
    return page_digest(STARTED_WITH.asked, beside=notebook == "reproducibility")


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


def finished_besides(wildcards):
    """The content of what the page shows and nobody asked for today: finished tables, diagnostics, grades, how runs
    ended. It has no argument `input`, because Snakemake sees no change of parameters that have.
    """
    waited_for = {*extra_seeds_of(wildcards), *diagnostics_files()}
    of_tables = (RESULTS.table, RESULTS.exploration, RESULTS.excerpts)
    waited_for |= {made(table) for made in of_tables for table in TABLES}
    asked = {c.evaluation for table in TABLES for c in STUDY.cells[table]}
    grades = {e: RESULTS.evaluation(e).grades for e in STUDY.evaluations}
    asked |= {e for e, path in grades.items() if path in waited_for}
    trained = {STUDY.evaluations[e].policy.id for e in asked}
    shown = [
        *(made(table) for made in of_tables for table in STUDY.cells),
        *map(RESULTS.diagnostics, STUDY.mixing_runs),
        *(path for e, path in grades.items() if e not in asked),
        *(
            RESULTS.run(run).model_card
            for run in STUDY.runs
            if run not in trained and RESULTS.run(run).model not in waited_for
        ),
    ]
    others = [path for path in shown if path not in waited_for and path.is_file()]
    return digest({str(path): file_sha256(path) for path in others})
