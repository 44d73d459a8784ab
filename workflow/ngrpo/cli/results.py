"""Commands of finished results: tables, the report and the crate."""

import sys
from pathlib import Path

import click

from ngrpo.cli.options import FOLDER, PATH, out_option, with_study
from ngrpo.terminal import echo, printable


@click.command()
@click.argument("table")
@with_study
@out_option
@click.option("--exploration", type=PATH, help="Where to write how diverse the table's systems answer, too.")
@click.option("--excerpts", type=PATH, help="Where to write some of their responses, too.")
def analyze(
    table: str, config: Path, scale: str, results: Path, out: Path, exploration: Path | None, excerpts: Path | None
) -> None:
    """Compute one table's metrics and intervals from its grades."""
    from ngrpo.report.tables import analyze as compute
    from ngrpo.study.expand import load_study

    compute(table, load_study(config, scale, results / scale), results / scale, out, exploration, excerpts)


@click.command()
@with_study
@out_option
def report(config: Path, scale: str, results: Path, out: Path) -> None:
    """Write the self-contained report page."""
    from ngrpo.report.page import report as write
    from ngrpo.study.expand import load_study

    write(load_study(config, scale, results / scale), results / scale, out)


@click.command(name="import")
@click.argument("name")
@click.argument("source", type=PATH)
@with_study
@click.option("--model", help="The base model beside whose runs it is drawn; default: the study's, where it has one.")
@click.option(
    "--column", "columns", multiple=True, metavar="OURS=THEIRS",
    help="A curve by its name here and in the source, where it isn't known: reward=my/reward. Repeatable.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace an import of this name.")
def import_curves(
    name: str,
    source: Path,
    config: Path,
    scale: str,
    results: Path,
    model: str | None,
    columns: tuple[str, ...],
    replace: bool,
) -> None:
    """Take another run's training curves, which the report draws beside the study's.

    SOURCE is a CSV with a column of steps, or a TensorBoard folder; NAME is how the report names it. Curves that verl
    or TRL logged are known by their names.
    """
    from ngrpo.report.imports import import_curves as take
    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results

    study, made = load_study(config, scale, results / scale), Results(results / scale)
    echo(f"imported {name}: {take(study, made, name, source, model=model, columns=columns, replace=replace)}")


@click.command()
@with_study
@out_option
def crate(config: Path, scale: str, results: Path, out: Path) -> None:
    """Export the study as a Workflow Run RO-Crate: a folder, or a .zip."""
    from ngrpo.crate import export
    from ngrpo.study.expand import load_study

    lacking = export(load_study(config, scale, results / scale), None, results / scale, out)
    echo(f"wrote {out}" + (f"; not in it, because not made yet: {', '.join(lacking)}" if lacking else ""))


@click.command()
@click.argument("crate", type=FOLDER)
def verify(crate: Path) -> None:
    """Check an unpacked crate: its files, and its tables and report made again from its grades and logs."""
    from ngrpo.crate import verify as check
    from ngrpo.crate.verify import UNCHECKED

    checked, differences = check(crate)
    for line in (*(c if c.startswith(UNCHECKED) else f"checked {c}" for c in checked), *differences):
        echo(printable(line))
    echo("no difference" if not differences else f"{len(differences)} differences")
    echo("unsigned: this shows whether the crate agrees with itself, not who made it")
    sys.exit(1 if differences else 0)


@click.command()
@click.argument("table", default="main")
@with_study
def table(table: str, config: Path, scale: str, results: Path) -> None:
    """Print a finished table in the terminal, and where the report is."""
    from ngrpo.report.finished import table_text
    from ngrpo.study.layout import Results

    echo(table_text(Results(results / scale), table))
