"""`ngrpo clean`: what nothing needs goes, what somebody may need stays, and the rest goes by its name alone."""

import os
import shutil
import time
from pathlib import Path

import pytest
from synthetic_study import ROOT

from ngrpo.cleaning import clean
from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.training.checkpoints import Checkpoints

OLD = time.time() - 3 * 24 * 3600


@pytest.fixture
def study() -> Study:
    return load_study(ROOT / "config", "toy")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "toy")


def _run(results: Results, name: str, spec: str, *, finished: bool) -> Path:
    """A run at step 4 with the best policy at step 2; its checkpoints' folder."""
    run = results.run(name)
    checkpoints = Checkpoints(run, spec)
    checkpoints.prepare()
    for step in (2, 4):
        (checkpoints.folder / f"global_step_{step}").mkdir()
        (checkpoints.folder / f"global_step_{step}/model.pt").write_bytes(bytes(1000))
        if step == 2:
            checkpoints.best_model(2).mkdir()
            (checkpoints.best_model(2) / "model.safetensors").write_bytes(bytes(100))
            checkpoints.declare_best(0.5, 2)
        checkpoints.commit(step)
    if finished:
        shutil.copytree(checkpoints.best_model(2), run.model)
        write_json(run.model_card, {"spec": spec, "step": 2, "score": 0.5, "steps": 4})
    return checkpoints.folder


def _all(results: Results) -> dict[str, bytes]:
    return {str(p.relative_to(results.root)): p.read_bytes() for p in results.root.rglob("*") if p.is_file()}


def test_checkpoints_of_finished_runs_go_and_those_of_others_stay(study: Study, results: Results) -> None:
    done = _run(results, "grpo-toy", study.runs["grpo-toy"].digest, finished=True)
    going = _run(results, "ngrpo-toy", study.runs["ngrpo-toy"].digest, finished=False)
    before = _all(results)
    text = clean(study, results, [], remove=False)
    assert "runs/grpo-toy/checkpoints" in text
    assert "--yes would remove 1, 2.1 kB" in text
    assert _all(results) == before  # it only shows
    assert "removed 1, 2.1 kB" in clean(study, results, [], remove=True)
    assert not list(done.glob("global_step_*"))
    assert sorted(p.name for p in going.glob("global_step_*")) == ["global_step_2", "global_step_4"]
    assert Checkpoints(results.run("grpo-toy"), study.runs["grpo-toy"].digest).prepare() == 4
    assert results.run("grpo-toy").model_card.exists()
    assert clean(study, results, [], remove=False) == "there is nothing to remove"


@pytest.mark.parametrize("why", ["export lost", "export cut short", "another spec's export", "a trainer", "kept"])
def test_checkpoints_that_somebody_may_need_stay(study: Study, results: Results, why: str) -> None:
    _run(results, "grpo-toy", "a" * 12, finished=True)
    run = results.run("grpo-toy")
    if why == "export lost":
        shutil.rmtree(run.model)
    elif why == "export cut short":
        (run.model / "model.safetensors").write_bytes(b"")
    elif why == "another spec's export":
        write_json(run.model_card, {"spec": "b" * 12, "step": 2, "score": 0.5, "steps": 4})
    elif why == "a trainer":
        write_json(run.lease, {"heartbeat": time.time()})
    else:
        object.__setattr__(study, "size", study.size.model_copy(update={"keep_checkpoints": True}))
    before = _all(results)
    assert clean(study, results, [], remove=True) == "removed 0, 0 B"
    assert _all(results) == before


def test_what_killed_jobs_left_goes_when_it_is_old(study: Study, results: Results) -> None:
    evaluation = results.evaluation("toy/standard/toy-held-out")
    digest = study.evaluations["toy/standard/toy-held-out"].digest
    old, new = [results.data / f".a.parquet.part-{n}" for n in (1, 2)]
    moved_away = results.root / "models" / ".toy.old-0123abcd-77-0123456789ab"
    model = results.root / "models" / ".toy.part-0123abcd-78-0123456789ab"
    own = evaluation.folder / f".toy-held-out.samples.parquet.shards-{digest}"
    others = evaluation.folder / f".toy-held-out.samples.parquet.shards-{'0' * 12}"
    for path in (old, new, moved_away / "x", model / "x", own / "x", others / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10))
        if path is not new:
            os.utime(path, (OLD, OLD))
            os.utime(path.parent, (OLD, OLD))
    clean(study, results, [], remove=True)
    assert [p.exists() for p in (old, model, others)] == [False] * 3
    assert new.exists()  # somebody may still write it
    assert moved_away.exists()  # all that is left of a model: the next writer puts it back
    assert own.exists()  # a job would go on with them
    evaluation.samples.touch()
    write_json(evaluation.samples_card, {"spec": digest})
    results.model("toy").folder.mkdir(exist_ok=True)
    for path in (own, moved_away):
        os.utime(path, (OLD, OLD))
    clean(study, results, [], remove=True)
    assert not own.exists()
    assert not moved_away.exists()


def test_results_that_no_table_asks_for_go_by_their_name_alone(study: Study, results: Results) -> None:
    _run(results, "grpo-toy", "a" * 12, finished=False)
    _run(results, "ngrpo-old-toy", "b" * 12, finished=False)
    gone = results.evaluation("ngrpo-old-toy/standard/toy-held-out")
    asked = results.evaluation("toy/standard/toy-held-out")
    table, other = results.table("main"), results.table("an-old-table")
    for path in (gone.samples, gone.grades, asked.samples, asked.grades, table, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(10))
    aside = results.run("grpo-toy").folder / "superseded" / ("c" * 12)
    aside.mkdir(parents=True)
    before = _all(results)
    text = clean(study, results, [], remove=True)
    assert _all(results) == before
    for name in ("runs/ngrpo-old-toy", "evaluations/ngrpo-old-toy/standard/toy-held-out", "analysis/an-old-table"):
        assert name in text
    assert "grpo-toy/superseded/cccccccccccc" in text
    assert "evaluations/toy/standard" not in text
    with pytest.raises(UserError, match="did you mean 'runs/ngrpo-old-toy'"):
        clean(study, results, ["runs/ngrpo-odl-toy"], remove=True)
    with pytest.raises(UserError, match="nobody asks for"):
        clean(study, results, ["runs/grpo-toy"], remove=True)
    clean(study, results, ["runs/ngrpo-old-toy", "evaluations/ngrpo-old-toy/standard/toy-held-out"], remove=True)
    assert not results.run("ngrpo-old-toy").folder.exists()
    assert not gone.samples.exists()
    assert not gone.grades.exists()
    assert {k for k in before if "ngrpo-old-toy" not in k} == _all(results).keys()


def test_links_are_left_alone(study: Study, results: Results, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (results.root / "runs").mkdir(parents=True)
    for name in ("an-old-run", ".x.part-1"):
        (results.root / "runs" / name).symlink_to(elsewhere)
    assert clean(study, results, [], remove=True) == "removed 0, 0 B"
    assert (elsewhere / "file").exists()


def test_an_evaluations_files_are_its_own(study: Study, results: Results) -> None:
    """A benchmark's id may hold a dot: `old` and `old.part-2` share a folder and the beginning of their names."""
    folder = results.evaluation("toy/standard/old").folder
    folder.mkdir(parents=True)
    for name in ("old", "old.part-2"):
        for ending in ("samples.parquet", "grades.parquet", "samples.card.json"):
            (folder / f"{name}.{ending}").write_bytes(bytes(10))
    clean(study, results, ["evaluations/toy/standard/old"], remove=True)
    assert sorted(path.name for path in folder.iterdir()) == [
        "old.part-2.grades.parquet",
        "old.part-2.samples.card.json",
        "old.part-2.samples.parquet",
    ]


def test_data_specs_and_copies_of_other_studies_go_by_their_names(study: Study, results: Results) -> None:
    study.store_specs(results)
    staying = {*_all(results)}
    asked = [results.dataset("toy-train"), results.training_data("toy-train", "toy")]
    gone = [results.dataset("old-set"), results.training_data("old-set", "old-model")]
    for files in (*asked, *gone):
        results.data.mkdir(exist_ok=True)
        for path in (files.problems, files.card, files.spec):
            path.write_bytes(bytes(10))
    staying |= {
        str(path.relative_to(results.root)) for files in asked for path in (files.problems, files.card, files.spec)
    }
    (results.root / "specs" / f"{'0' * 12}.json").write_bytes(bytes(10))
    old, new = (results.snapshot(digest) for digest in ("1" * 12, "2" * 12))
    for copy in (old, new):
        copy.mkdir(parents=True)
        (copy / "study.yaml").touch()
    for path in (old / "study.yaml", old):
        os.utime(path, (OLD, OLD))
    text = clean(study, results, [], remove=True)
    assert "data/old-set.old-model" in text
    assert "data/toy-train" not in text
    names = ["data/old-set", "data/old-set.old-model", "specs", "studies"]
    clean(study, results, names, remove=True)
    assert {*_all(results)} == staying | {str((new / "study.yaml").relative_to(results.root))}
    assert not old.exists()
