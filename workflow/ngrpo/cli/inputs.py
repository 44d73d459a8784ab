"""Commands of the stages before training: data sets, base models, training data, neighbor tables."""

from pathlib import Path

import click

from ngrpo.cli.options import FILE, FOLDER, SPEC, data_folder_option, out_option, spec_argument


@click.command()
@spec_argument
@data_folder_option
@click.option("--asked", is_flag=True, help="Its problems are asked: refuse those that have no answer to grade by.")
@click.option("--mirror", help="URL of an archive of a hub's data set, for when the hub doesn't give it.")
@click.option("--sha256", help="What the SHA-256 of a hub's rows must be; default: what the first fetch recorded.")
@out_option
def dataset(
    spec: Path, data_folder: Path | None, asked: bool, mirror: str | None, sha256: str | None, out: Path
) -> None:
    """Fetch or make a data set: problems with answers, and a card."""
    from ngrpo.data.datasets import make_dataset
    from ngrpo.data.fetching import Archive
    from ngrpo.study.specs import DatasetSpec, keep_spec, read_spec

    wanted, archive = read_spec(spec, DatasetSpec), Archive(mirror or None, sha256 or None)
    make_dataset(wanted, out, data_folder=data_folder, asked=asked, archive=archive)
    keep_spec(wanted, out.with_suffix(SPEC))


@click.command()
@spec_argument
@out_option
def model(spec: Path, out: Path) -> None:
    """Fetch or make a base model, as a Hugging Face folder."""
    from ngrpo.stages.base_models import make_model
    from ngrpo.study.specs import ModelSpec, keep_spec, read_spec

    asked = read_spec(spec, ModelSpec)
    make_model(asked, out)
    keep_spec(asked, out.with_name(out.name + SPEC))


@click.command()
@spec_argument
@click.option("--base", type=FOLDER, required=True, help="The base model that it was trained from.")
@click.option("--source", type=FOLDER, help="The folder that it lies in; without one it is fetched from the hub.")
@out_option
def policy(spec: Path, base: Path, source: Path | None, out: Path) -> None:
    """Fetch or copy a policy that was trained elsewhere, and check that it fits its base model; merge an adapter."""
    from ngrpo.stages.policies import make_policy
    from ngrpo.study.specs import PolicySpec, keep_spec, read_spec

    asked = read_spec(spec, PolicySpec)
    make_policy(asked, out, base=base, source=source)
    keep_spec(asked, out.with_name(out.name + SPEC))


@click.command()
@spec_argument
@click.option("--source", type=FILE, required=True, help="The file: rows of problem_id, sample and response (JSONL).")
@click.option("--problems", type=FILE, required=True, help="The benchmark's problems.")
@click.option("--out", type=FILE, required=True, help="Where the samples go: {benchmark}.samples.parquet.")
def predictions(spec: Path, source: Path, problems: Path, out: Path) -> None:
    """Take samples that were drawn elsewhere as an evaluation: the first n of each problem."""
    from ngrpo.stages.predictions import take_predictions
    from ngrpo.study.specs import PredictedSpec, keep_spec, read_spec

    asked = read_spec(spec, PredictedSpec)
    take_predictions(asked, out, source=source.expanduser(), problems=problems)
    keep_spec(asked, out.with_name(f"{asked.benchmark.id}{SPEC}"))


@click.command("training-data")
@spec_argument
@click.option("--problems", type=FILE, required=True)
@click.option("--benchmark", "benchmarks", type=FILE, multiple=True, help="Problems to keep out of training.")
@click.option("--model", type=FOLDER, required=True, help="Whose tokenizer counts the prompt's tokens.")
@out_option
def training_data(spec: Path, problems: Path, benchmarks: tuple[Path, ...], model: Path, out: Path) -> None:
    """Filter training problems: length, answers, duplicates, benchmark overlap; the card says why each left."""
    from ngrpo.stages.training_data import make_training_data
    from ngrpo.study.specs import TrainingDataSpec, keep_spec, read_spec

    asked = read_spec(spec, TrainingDataSpec)
    make_training_data(asked, problems=problems, benchmarks=list(benchmarks), model=model, out=out)
    keep_spec(asked, out.with_suffix(SPEC))


@click.command()
@spec_argument
@click.option("--model", type=FOLDER, required=True)
@out_option
def neighbors(spec: Path, model: Path, out: Path) -> None:
    """Precompute a neighbor table (Eq. 7-8)."""
    from ngrpo.stages.neighbor_tables import make_table
    from ngrpo.study.specs import NeighborSpec, keep_spec, read_spec

    asked = read_spec(spec, NeighborSpec)
    make_table(asked, model=model, out=out)
    keep_spec(asked, out.with_suffix(SPEC))
