"""Commands of the stages that train and draw."""

from pathlib import Path

import click

from ngrpo.cli.options import FILE, FOLDER, SPEC, out_option, spec_argument, with_study
from ngrpo.terminal import echo


@click.command()
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
@click.option(
    "--checkpoints",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    show_default=True,
    help="Whether checkpoints stay when the run is finished.",
)
@click.option(
    "--tracking",
    default="none",
    show_default=True,
    help="Trackers that get its curves, joined by commas: tensorboard (in the run's folder), wandb, mlflow.",
)
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
    checkpoints: str,
    tracking: str,
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
        run_dir=out.parent,
        out=out,
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        nodes=nodes,
        devices=devices,
        tensor_parallel=tensor_parallel,
        keep_checkpoints=checkpoints == "keep",
        tracking=[] if tracking == "none" else tracking.split(","),
    )


@click.command()
@with_study
@click.option("--every", type=click.FloatRange(min=1), default=5.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once.")
def watch(config: Path, scale: str, results: Path, every: float, once: bool) -> None:
    """Watch trainings: state, step, reward, mismatch, seconds a step, expected end; until all are finished.

    Where the output is no terminal it looks once.
    """
    import sys
    import time

    from ngrpo.study.expand import load_study
    from ngrpo.study.layout import Results
    from ngrpo.training.watching import watch_text, watched

    made = Results(results / scale)
    runs = load_study(config, scale, made.root).runs
    once = once or not sys.stdout.isatty()
    while True:
        seen = watched(made, runs)
        if not once:
            click.clear()
        echo(watch_text(seen))
        if once or all(run.state == "finished" for run in seen):
            return
        time.sleep(every)


@click.command()
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
    from ngrpo.study.specs import EvaluationSpec, keep_spec, read_spec

    asked = [read_spec(spec, EvaluationSpec) for spec in specs]
    draw(asked, model=model, data=data, neighbors=neighbors, out=out, shard_samples=shard_samples)
    for each in asked:
        keep_spec(each, out / f"{each.benchmark.id}{SPEC}")


@click.command()
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


@click.command()
@click.argument("model", type=FOLDER)
@click.option("--neighbors", type=FILE, help="The model's neighbor table, where requests mix neighbors.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(model: Path, neighbors: Path | None, options: tuple[str, ...]) -> None:
    """Serve a model by sglang's HTTP server, to clients that mix (docs/in-your-own-code.md) and to others.

    OPTIONS are sglang's own, after two dashes: ngrpo serve MODEL -- --port 30000
    """
    from ngrpo.engines.sglang.server import serve as start

    start(model, neighbors, options)
