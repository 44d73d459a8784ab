"""Commands around a study: what it would cost and has cost, whether it can run here, its configuration's schemas."""

import sys
from pathlib import Path

import click

from ngrpo.cli.options import FILE, FOLDER, data_folder_option, with_study
from ngrpo.terminal import echo, printable


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def doctor(options: tuple[str, ...]) -> None:
    """Tell what is there, what is missing and which scale can run here (--help lists its options)."""
    from ngrpo.doctor import main as examine

    sys.exit(examine(options))


@click.command()
@click.argument("target", default="all")
@click.option("--rate", type=click.FloatRange(0), help="What a GPU-hour costs you; default: config/costs.yaml.")
@click.option("--currency", help="In what you pay; default: config/costs.yaml.")
@click.option("--nodes", type=click.IntRange(1), help="Nodes that you have at a time; default: as many as jobs.")
@click.option("--jobs", is_flag=True, help="Name every job that would run.")
@data_folder_option
@with_study
def plan(
    target: str,
    rate: float | None,
    currency: str | None,
    nodes: int | None,
    jobs: bool,
    data_folder: Path | None,
    config: Path,
    scale: str,
    results: Path,
) -> None:
    """Tell what a target (all, a table, a run, …) would cost, what of it is done, and why the rest would run."""
    from ngrpo.planning.costs import Costs
    from ngrpo.planning.jobs import planned_jobs
    from ngrpo.planning.text import plan_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    study, files = load_study(config, scale, results / scale), Results(results / scale)
    costs = Costs(study, files)
    planned = planned_jobs(study, files, costs, target, data_folder=data_folder)
    echo(plan_text(planned, costs, study=study, rate=rate, nodes=nodes, every_job=jobs, currency=currency))


@click.command()
@data_folder_option
@with_study
def ledger(data_folder: Path | None, config: Path, scale: str, results: Path) -> None:
    """Tell what every run and evaluation was planned to cost, and what it has."""
    from ngrpo.planning.costs import Costs
    from ngrpo.planning.jobs import planned_jobs
    from ngrpo.planning.text import ledger_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    study, files = load_study(config, scale, results / scale), Results(results / scale)
    costs = Costs(study, files)
    jobs = planned_jobs(study, files, costs, "all", *study.cells, data_folder=data_folder)
    echo(ledger_text(study, files, jobs, costs))


@click.command()
@click.argument("claim", required=False)
@click.option("--gpu-hours", type=click.FloatRange(0), help="A budget: name the claims that it decides first.")
@click.option("--rate", type=click.FloatRange(0), help="What a GPU-hour costs you; default: config/costs.yaml.")
@click.option("--svg", type=FILE, help="Draw power over seeds of CLAIM into this file.")
@with_study
def power(
    claim: str | None,
    gpu_hours: float | None,
    rate: float | None,
    svg: Path | None,
    config: Path,
    scale: str,
    results: Path,
) -> None:
    """Tell what can be decided at what price: for each claim (or CLAIM) what seeds show, and what 80 % power costs."""
    from ngrpo.errors import UserError
    from ngrpo.files import whole_file
    from ngrpo.planning.costs import Costs
    from ngrpo.planning.power import PlannedClaim, Planner
    from ngrpo.planning.power_text import power_figure, power_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    study = load_study(config, scale, results / scale)
    planner = Planner(study, Costs(study, Results(results / scale)))
    if svg and claim is None:
        raise UserError("a figure shows one claim", where="--svg", do="name the claim: ngrpo power CLAIM --svg FILE")
    echo(power_text(planner, only=claim, rate=rate, budget=gpu_hours))
    for planned in planner.claims(claim) if svg else ():
        if svg and isinstance(planned, PlannedClaim):
            with whole_file(svg) as part:
                part.write_text(power_figure(planned), encoding="utf-8")


@click.command()
@click.argument("claim", required=False)
@with_study
def claim(claim: str | None, config: Path, scale: str, results: Path) -> None:
    """Tell what is known of CLAIM: what it says, how it is judged, its verdict now, what is missing, what it takes.

    Without CLAIM all are listed with their verdicts. Nothing is recorded: this is no look.
    """
    from ngrpo.planning.claim_text import claim_text, claims_text
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    study, made = load_study(config, scale, results / scale), Results(results / scale)
    echo(claim_text(claim, study, made) if claim else claims_text(study, made))


@click.command()
@click.argument("claim")
@click.option("--max-seeds", type=click.IntRange(1), help="Training seeds that it may get; default: the scale's.")
@click.option("--out", type=FILE, help="Write what is known then, as JSON.")
@with_study
def decide(claim: str, max_seeds: int | None, out: Path | None, config: Path, scale: str, results: Path) -> None:
    """Look at a claim on the training seeds that are there; say whether it is decided, and what another seed costs.

    The look is recorded. `snakemake decide-CLAIM` adds seeds and calls this until it is over.
    """
    from ngrpo.files import write_json
    from ngrpo.planning.sequential import decide as look
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    outcome = look(claim, load_study(config, scale, results / scale), Results(results / scale), max_seeds)
    if out:
        write_json(out, outcome.json_value())
    echo(outcome.line)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--yes", is_flag=True, help="Remove it; otherwise it is only shown.")
@with_study
def clean(names: tuple[str, ...], yes: bool, config: Path, scale: str, results: Path) -> None:
    """Show what nothing needs, and with --yes remove it.

    NAMES are results that no table asks for any more, as shown: these are removed only by name.
    """
    from ngrpo.cleaning import clean as tidy
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    echo(tidy(load_study(config, scale, results / scale), Results(results / scale), names, remove=yes))


@click.command("audit-paper")
@with_study
def audit_paper(config: Path, scale: str, results: Path) -> None:
    """Tell what the paper's own numbers can bear: possible counts, what one run shows, chance (seconds, no results)."""
    from ngrpo.audit.paper_text import findings_text
    from ngrpo.claims.printed import paper_findings
    from ngrpo.errors import UserError
    from ngrpo.study.expand import load_study

    audited = paper_findings(load_study(config, scale))
    if audited is None:
        raise UserError("the configuration has none of the paper's values", where=config / "paper_values.yaml")
    echo(findings_text(*audited))


@click.command()
@click.option("--out", type=FOLDER, default=Path("config/schema"), show_default=True)
def schema(out: Path) -> None:
    """Write the JSON schemas of the configuration files, for editors."""
    from ngrpo.study.schema import write_schemas

    for path in write_schemas(out):
        echo(printable(path))
