"""What Snakemake itself would run again in a finished study after an edit: anchors of test_what_reruns.py."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
import yaml
from finished_study import FinishedStudy

from ngrpo.planning.costs import Costs
from ngrpo.planning.jobs import planned_jobs
from ngrpo.report.imports import import_curves
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.specs import keep_spec

TABLE = {"analyze", "notebook", "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """A study that asks `--touch` once, as after `cp -r`."""
    return FinishedStudy(tmp_path_factory.mktemp("finished") / "project", tables=("main", "ablation-inference"))


@pytest.fixture
def study(finished: FinishedStudy):
    """The same, with its configuration put back afterwards."""
    before = {path: path.read_text() for path in finished.config.rglob("*.yaml")}
    yield finished
    for path, text in before.items():
        path.write_text(text)


def test_touched_results_are_done_to_snakemake_and_to_the_plan(study: FinishedStudy) -> None:
    assert study.planned() == set()
    with contextlib.chdir(study.folder):
        files = Results(Path("results/toy"))
        jobs = planned_jobs(study.study(), files, Costs(study.study(), files))
    assert [(job.stage, job.name, job.why) for job in jobs if job.why] == []


def test_another_k_makes_tables_and_page_anew(study: FinishedStudy) -> None:
    study.edit("scales/toy.yaml", evaluation__pass_at=[8, 32])
    assert study.planned() == TABLE


def test_machines_folders_and_other_names_make_nothing_anew(study: FinishedStudy, tmp_path: Path) -> None:
    study.edit(
        "scales/toy.yaml", threads=2, checkpoint_every=7, shard_samples=9, demo=["main"], targets={"x": ["main"]}
    )
    os.rename(study.config, study.folder / "my config")
    words = [f"data_folder={tmp_path}", "config=my config", "cluster={account: none, walltime: 99}"]
    try:
        done = study.snakemake("-n", settings=(*words, "environments={train: ~/elsewhere, workflow: deployed}"))
    finally:
        os.rename(study.folder / "my config", study.config)
    assert "Nothing to be done" in done.stdout, done.stdout


def test_the_page_follows_finished_tables_that_are_not_asked_for_and_makes_none(study: FinishedStudy) -> None:
    demo = {"tables": "main", "max_seeds": 1}
    other = Results(study.results / "toy").table("ablation-inference")
    before, parked = other.read_bytes(), other.with_suffix(".away")
    done = study.snakemake("all", "--touch", settings=("tables=main", "max_seeds=1"))
    assert done.returncode == 0, done.stdout
    assert study.planned(**demo) == set(), "nothing is new"
    other.write_bytes(b"computed again")
    assert study.planned(**demo) == {"report"}
    other.rename(parked)
    assert study.planned(**demo) == {"report"}, "a table that isn't there isn't made"
    parked.rename(other)
    other.write_bytes(before)
    assert study.planned(**demo) == set()
    study.snakemake("all", "--touch")


def test_an_import_of_curves_makes_the_page_anew(study: FinishedStudy) -> None:
    source = study.folder / "log.csv"
    source.write_text("step,reward\n1,0.5\n")
    import_curves(study.study(), Results(study.results / "toy"), "theirs", source)
    assert study.planned() == {"report"}
    shutil.rmtree(study.results / "toy" / "imported")
    assert study.planned() == set()


def test_a_renamed_method_and_decoding_are_named_on_the_page_alone(study: FinishedStudy) -> None:
    text = (study.config / "study.yaml").read_text()
    for old, new in (("ngrpo", "neighbor-grpo"), ("mixing", "neighbor-mixing")):
        text = text.replace(f"\n  {old}:\n", f"\n  {new}:\n")
        for key in ("method", "decoding"):
            text = text.replace(f"{key}: {old}" + "}", f"{key}: {new}" + "}").replace(
                f"{key}: {old},", f"{key}: {new},"
            )
    assert set(yaml.safe_load(text)["methods"]) ^ {"ngrpo"} > {"neighbor-grpo"}
    (study.config / "study.yaml").write_text(text)
    assert study.planned() == {"notebook", "report"}
    assert study.planned("neighbor-grpo-toy") == set(), "its new name is a target"


def test_a_value_that_is_changed_back_makes_nothing_anew(study: FinishedStudy) -> None:
    before = (study.config / "study.yaml").read_text()
    study.edit("study.yaml", methods__ngrpo__exploration__rho=0.3)
    assert study.planned() == {*TABLE, "train", "sample", "grade", "diagnostics"}
    (study.config / "study.yaml").write_text(before)
    assert study.planned() == set()


def test_the_plan_says_how_a_renamed_model_keeps_its_runs(study: FinishedStudy) -> None:
    size = yaml.safe_load((study.config / "scales" / "toy.yaml").read_text())
    study.edit("scales/toy.yaml", models={"tiny": size["models"]["toy"]})
    with contextlib.chdir(study.folder):
        files = Results(Path("results/toy"))
        expanded = load_study(Path("config"), "toy", files.root)
        jobs = planned_jobs(expanded, files, Costs(expanded, files), "grpo-tiny", "ngrpo-tiny")
    why = {job.name: job.why for job in jobs if job.stage == "train"}
    assert "'grpo-toy' was made for the same under other ids of models or data sets" in why["grpo-tiny"]
    assert "'ngrpo-toy' was made" in why["ngrpo-tiny"]


def test_another_content_of_ones_own_model_folder_makes_it_anew(study: FinishedStudy, tmp_path: Path) -> None:
    """Last: it leaves Snakemake a record of another model than the other tests have."""
    own = tmp_path / "own model"
    own.mkdir()
    (own / "model.safetensors").write_bytes(b"one")
    study.edit("scales/toy.yaml", models__toy__source={"kind": "folder", "path": str(own)})
    done = study.snakemake("toy", "--touch")
    assert done.returncode == 0, done.stdout
    assert study.planned("toy") == set()
    os.utime(own / "model.safetensors", None)
    (own / "notes.md").write_text("no part of a model")
    assert study.planned("toy") == set()
    then = (own / "model.safetensors").stat()
    (own / "model.safetensors").write_bytes(b"two")
    os.utime(own / "model.safetensors", ns=(then.st_atime_ns, then.st_mtime_ns))  # as `cp -p` of an older one
    assert study.planned("toy") == {"model"}
    with contextlib.chdir(study.folder):
        files = Results(Path("results/toy"))
        keep_spec(study.study().models["toy"], files.model("toy").spec)  # as the job leaves it
        (job,) = planned_jobs(study.study(), files, Costs(study.study(), files), "toy")
    assert job.why == "your file or folder holds something else now, or its code has changed"
