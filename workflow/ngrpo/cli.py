"""`ngrpo`: every stage as a subcommand that runs without Snakemake. Rules call these, one command each.

A user's mistake ends in one message (what, where, what to do) and exit code 1; `--traceback` shows where it was raised.
Stages are imported when they run: `ngrpo plan` on a login node loads no torch.
"""

import os
import sys
import traceback
from pathlib import Path

import click

from ngrpo import __version__
from ngrpo.errors import UserError, unknown_name

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
PATH = click.Path(path_type=Path)


class Commands(click.Group):
    """A group that names the nearest command and turns UserErrors into one message."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """As click's; an unknown command's message names the nearest one."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown_name("command", args[0], self.list_commands(ctx), where="ngrpo")
        return super().resolve_command(ctx, args)

    def main(self, *args, **kwargs):
        """As click's, with UserErrors shown plainly."""
        try:
            return super().main(*args, **kwargs)
        except UserError as e:
            if "--traceback" in sys.argv:
                traceback.print_exc()
            print(f"error: {e}", file=sys.stderr)
            sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--traceback", is_flag=True, help="Show where an error was raised.")
def main(traceback: bool) -> None:
    """Reproduce N-GRPO: each stage of the study as a command."""
    # stages print their own progress; the libraries' bars and advice would bury it in logs
    for name, value in (("TQDM_DISABLE", "1"), ("TRANSFORMERS_VERBOSITY", "error"), ("PYTHONUNBUFFERED", "1")):
        os.environ.setdefault(name, value)


spec_argument = click.argument("spec", type=FILE)
out_option = click.option("--out", type=PATH, required=True, help="What to write; whole or not at all.")
study_options = [
    click.option("--config", type=FOLDER, default=Path("config"), show_default=True, help="The study's configuration."),
    click.option("--scale", default="toy", show_default=True, help="toy, smoke or paper."),
    click.option("--results", type=FOLDER, default=Path("results"), show_default=True, help="Where results go."),
]


def with_study(command):
    """Add the options that name a study."""
    for option in reversed(study_options):
        command = option(command)
    return command


@main.command()
@spec_argument
@click.option("--data-folder", type=FOLDER, help="Where data sets of kind `folder` lie.")
@out_option
def dataset(spec: Path, data_folder: Path | None, out: Path) -> None:
    """Fetch or make a data set: problems with answers, and a card."""
    from ngrpo.data.datasets import make_dataset
    from ngrpo.study.specs import DatasetSpec, read_spec

    make_dataset(read_spec(spec, DatasetSpec), out, data_folder=data_folder)


@main.command()
@spec_argument
@out_option
def model(spec: Path, out: Path) -> None:
    """Fetch or make a base model, as a Hugging Face folder."""
    from ngrpo.stages.base_models import make_model
    from ngrpo.study.specs import ModelSpec, read_spec

    make_model(read_spec(spec, ModelSpec), out)


@main.command("training-data")
@spec_argument
@click.option("--problems", type=FILE, required=True)
@click.option("--benchmark", "benchmarks", type=FILE, multiple=True, help="Problems to keep out of training.")
@click.option("--model", type=FOLDER, required=True, help="Whose tokenizer counts the prompt's tokens.")
@out_option
def training_data(spec: Path, problems: Path, benchmarks: tuple[Path, ...], model: Path, out: Path) -> None:
    """Filter training problems: length, answers, duplicates, benchmark overlap; the card says why each left."""
    from ngrpo.stages.training_data import make_training_data
    from ngrpo.study.specs import TrainingDataSpec, read_spec

    make_training_data(
        read_spec(spec, TrainingDataSpec), problems=problems, benchmarks=list(benchmarks), model=model, out=out
    )


@main.command()
@spec_argument
@click.option("--model", type=FOLDER, required=True)
@out_option
def neighbors(spec: Path, model: Path, out: Path) -> None:
    """Precompute a neighbor table (Eq. 7-8)."""
    from ngrpo.stages.neighbor_tables import make_table
    from ngrpo.study.specs import NeighborSpec, read_spec

    make_table(read_spec(spec, NeighborSpec), model=model, out=out)


@main.command()
@spec_argument
@click.option("--model", type=FOLDER, required=True, help="The base model.")
@click.option("--data", type=FILE, required=True, help="Filtered training problems.")
@click.option("--validation", type=FILE, required=True, help="Problems that choose the checkpoint.")
@click.option("--neighbors", type=FILE, help="The neighbor table, where exploration mixes neighbors.")
@click.option("--checkpoint-every", type=int, default=10, show_default=True, help="Steps between checkpoints.")
@click.option(
    "--checkpoint-minutes", type=float, default=30.0, show_default=True, help="Save at least this often, too."
)
@click.option("--nodes", type=int, default=1, show_default=True, help="Nodes of this SLURM job to train on.")
@click.option("--devices", type=int, help="GPUs (or CPU ranks) of this node to use; default: all GPUs, or 1 CPU rank.")
@click.option("--tensor-parallel", type=int, default=1, show_default=True, help="Devices that share a rollout engine.")
@out_option
def train(
    spec: Path,
    model: Path,
    data: Path,
    validation: Path,
    neighbors: Path | None,
    checkpoint_every: int,
    checkpoint_minutes: float,
    nodes: int,
    devices: int | None,
    tensor_parallel: int,
    out: Path,
) -> None:
    """Train one run with verl and sglang; resumes from its last checkpoint; writes the best checkpoint last."""
    from ngrpo.study.specs import RunSpec, read_spec
    from ngrpo.training.launch import train as launch

    launch(
        read_spec(spec, RunSpec),
        model=model,
        data=data,
        validation=validation,
        neighbors=neighbors,
        run_dir=spec.parent,
        out=out,
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        nodes=nodes,
        devices=devices,
        tensor_parallel=tensor_parallel,
    )


@main.command()
@click.argument("specs", type=FILE, nargs=-1, required=True)
@click.option("--model", type=FOLDER, required=True, help="The policy: a base model or a run's model.")
@click.option("--data", type=FOLDER, required=True, help="Where the benchmarks' problems lie: {benchmark}.parquet.")
@click.option("--neighbors", type=FILE, help="The neighbor table, where the decoding mixes neighbors.")
@click.option("--shard-samples", type=int, default=512, show_default=True, help="Samples that a kill can cost.")
@click.option("--out", type=FOLDER, required=True, help="Where {benchmark}.samples.parquet go.")
def sample(
    specs: tuple[Path, ...], model: Path, data: Path, neighbors: Path | None, shard_samples: int, out: Path
) -> None:
    """Draw n answers to every problem of benchmarks; a killed job continues where it was.

    SPECS are of one policy and decoding: one start of the engine serves them.
    """
    from ngrpo.stages.samples import sample as draw
    from ngrpo.study.specs import EvaluationSpec, read_spec

    asked = [read_spec(spec, EvaluationSpec) for spec in specs]
    draw(asked, model=model, data=data, neighbors=neighbors, out=out, shard_samples=shard_samples)


@main.command()
@spec_argument
@click.option("--model", type=FOLDER, required=True, help="The run's base model.")
@click.option("--neighbors", type=FILE, required=True)
@click.option("--problems", type=FILE, required=True, help="The run's validation problems.")
@out_option
def diagnostics(spec: Path, model: Path, neighbors: Path, problems: Path, out: Path) -> None:
    """Measure what mixing does to trajectories of a run's base model, for the notebook of diagnostics."""
    from ngrpo.stages.mixing_diagnostics import diagnostics as measure
    from ngrpo.study.specs import RunSpec, read_spec

    measure(read_spec(spec, RunSpec), model=model, neighbors=neighbors, problems=problems, out=out)


@main.command()
@click.argument("answers", type=FILE)
@click.option("--problems", type=FILE, help="The benchmark's problems (for samples in parquet).")
@click.option("--workers", type=int, help="Grader processes; default: one a core.")
@out_option
def grade(answers: Path, problems: Path | None, workers: int | None, out: Path) -> None:
    """Grade samples (parquet) or any system's outputs (JSONL rows {id, response, answer, kind})."""
    from ngrpo.grading import grade_file, grade_samples

    if answers.suffix == ".parquet":
        if problems is None:
            raise UserError("samples need their problems", where="ngrpo grade", do="add --problems FILE")
        grade_samples(answers, problems, out, workers=workers)
    else:
        grade_file(answers, out, workers=workers)


@main.command()
@click.argument("table")
@with_study
@out_option
def analyze(table: str, config: Path, scale: str, results: Path, out: Path) -> None:
    """Compute one table's metrics and intervals from its grades."""
    from ngrpo.report.tables import analyze as compute
    from ngrpo.study.expand import load_study

    compute(table, load_study(config, scale), results / scale, out)


@main.command()
@with_study
@out_option
def report(config: Path, scale: str, results: Path, out: Path) -> None:
    """Write the self-contained report page."""
    from ngrpo.report.page import report as write
    from ngrpo.study.expand import load_study

    write(load_study(config, scale), results / scale, out)


@main.command()
@with_study
@out_option
def crate(config: Path, scale: str, results: Path, out: Path) -> None:
    """Export the study as a Workflow Run RO-Crate: a folder, or a .zip."""
    from ngrpo.crate import export
    from ngrpo.study.expand import load_study

    lacking = export(load_study(config, scale), config.resolve().parent, results / scale, out)
    print(f"wrote {out}" + (f"; not in it, because not made yet: {', '.join(lacking)}" if lacking else ""))


@main.command()
@click.argument("crate", type=FOLDER)
def verify(crate: Path) -> None:
    """Check an unpacked crate: its files, and its tables recomputed from its grades."""
    from ngrpo.crate import verify as check

    checked, differences = check(crate)
    for line in (*(f"checked {c}" for c in checked), *differences):
        print(line)
    print("no difference" if not differences else f"{len(differences)} differences")
    sys.exit(1 if differences else 0)


@main.command()
@click.argument("table", default="main")
@with_study
def table(table: str, config: Path, scale: str, results: Path) -> None:
    """Print a finished table in the terminal, and where the report is."""
    import pandas as pd

    from ngrpo.report.tables import terminal_table

    path = results / scale / "analysis" / f"{table}.parquet"
    if not path.exists():
        raise UserError(f"table '{table}' isn't computed yet", where=path, do=f"snakemake --cores 2 {path}")
    print(terminal_table(pd.read_parquet(path)))
    page = results / scale / "report" / "index.html"
    print(f"\nReport: {page.resolve() if page.exists() else f'not written yet; snakemake --cores 2 {page}'}")


@main.command()
@click.argument("evaluation")
@click.argument("problem")
@with_study
def show(evaluation: str, problem: str, config: Path, scale: str, results: Path) -> None:
    """Show a problem of an evaluation (POLICY/DECODING/BENCHMARK): all its samples, answers and grades."""
    import pandas as pd

    from ngrpo.report.inspection import show as text

    files = _evaluation_files(evaluation, config, scale, results)
    print(text(problem, *(pd.read_parquet(path) for path in files)))


@main.command()
@click.argument("first")
@click.argument("second")
@with_study
def diff(first: str, second: str, config: Path, scale: str, results: Path) -> None:
    """Compare two evaluations of one benchmark: which problems flipped."""
    import pandas as pd

    from ngrpo.report.inspection import diff as text

    problems, _, one = _evaluation_files(first, config, scale, results)
    _, _, other = _evaluation_files(second, config, scale, results)
    a, b, asked = (pd.read_parquet(path) for path in (one, other, problems))
    print(text(a, b, (first, second), asked))


def _evaluation_files(name: str, config: Path, scale: str, results: Path) -> tuple[Path, Path, Path]:
    """Problems, samples and grades of an evaluation, all of them there."""
    from ngrpo.study.expand import load_study

    study = load_study(config, scale)
    if name not in study.evaluations:
        raise unknown_name("evaluation", name, study.evaluations, where=f"scale {scale}")
    root = results / scale
    problems = root / "data" / f"{study.evaluations[name].benchmark.id}.parquet"
    samples, grades = (root / "evaluations" / f"{name}.{kind}.parquet" for kind in ("samples", "grades"))
    for path in (problems, samples, grades):
        if not path.exists():
            raise UserError("this evaluation isn't finished", where=path, do=f"snakemake --cores 2 {path}")
    return problems, samples, grades


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def doctor(options: tuple[str, ...]) -> None:
    """Tell what is there, what is missing and which scale can run here (--help lists its options)."""
    from ngrpo.doctor import main as examine

    sys.exit(examine(options))


@main.command()
@click.argument("target", default="all")
@click.option("--rate", type=click.FloatRange(0), help="What a GPU-hour costs you; default: config/costs.yaml.")
@click.option("--currency", help="In what you pay; default: config/costs.yaml.")
@click.option("--nodes", type=click.IntRange(1), help="Nodes that you have at a time; default: as many as jobs.")
@click.option("--jobs", is_flag=True, help="Name every job that would run.")
@with_study
def plan(
    target: str,
    rate: float | None,
    currency: str | None,
    nodes: int | None,
    jobs: bool,
    config: Path,
    scale: str,
    results: Path,
) -> None:
    """Tell what a target (all, a table, a run, …) would cost, what of it is done, and why the rest would run."""
    from ngrpo.planning.plan import Plan, plan_text

    study, costs = _with_costs(config, scale, results)
    found = Plan(study, results / scale, costs, target)
    print(plan_text(found, rate=rate, nodes=nodes, every_job=jobs, currency=currency))


@main.command()
@with_study
def ledger(config: Path, scale: str, results: Path) -> None:
    """Tell what every run and evaluation was planned to cost, and what it has."""
    from ngrpo.planning.plan import ledger_text

    study, costs = _with_costs(config, scale, results)
    print(ledger_text(study, results / scale, costs))


def _with_costs(config: Path, scale: str, results: Path):
    """The study at a scale, and its costs."""
    from ngrpo.planning.costs import Costs
    from ngrpo.study.expand import load_study

    study = load_study(config, scale)
    return study, Costs(config, scale, results / scale, study.runs, study.evaluations)


@main.command()
@click.option("--out", type=FOLDER, default=Path("config/schema"), show_default=True)
def schema(out: Path) -> None:
    """Write the JSON schemas of the configuration files, for editors."""
    from ngrpo.planning.schema import write_schemas

    for path in write_schemas(out):
        print(path)


if __name__ == "__main__":
    main()
