"""What a study would cost, what of it is done and why the rest would run; what was spent."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from synthetic_study import ROOT, make_study

from ngrpo.errors import UserError
from ngrpo.planning.changes import changed_values
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.jobs import Job, planned_jobs
from ngrpo.planning.schedule import wall_time
from ngrpo.planning.text import ledger_text, plan_text
from ngrpo.study.batches import Batch, batches
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

CONFIG = ROOT / "config"


def plan_of(study: Study, results: Path, *targets: str) -> list[Job]:
    files = Results(results)
    return planned_jobs(study, files, Costs(study, files), *targets)


def text(jobs: list[Job], study: Study, results: Path, **options) -> str:
    return plan_text(jobs, Costs(study, Results(results)), **options)


def ledger(study: Study, results: Path) -> str:
    files = Results(results)
    costs = Costs(study, files)
    return ledger_text(study, files, planned_jobs(study, files, costs, *study.cells), costs)


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(CONFIG, "paper")


@pytest.fixture
def finished(tmp_path: Path):
    """A finished synthetic study at paper scale, with all files that jobs would write."""
    study, results = make_study(tmp_path, "paper", problems=6), tmp_path / "paper"
    (study.folder / "costs.yaml").write_bytes((CONFIG / "costs.yaml").read_bytes())
    for path in (*(results / spec for spec in study.specs()), *study.folder.glob("*.yaml")):
        os.utime(path, (0, 0))
    newest = max(path.stat().st_mtime for path in (ROOT / "notebooks").iterdir())
    for place, job in enumerate(plan_of(study, results), start=1):
        for path in OUTPUTS[job.stage](job.name, study, Results(results)):
            make(path, newest + place / 1000)
    return study, results


def make(path: Path, when: float) -> None:
    """An output as a job leaves it, made at this time; a folder has Snakemake's stamp."""
    folder = path.name == "figures" or path.parent.name == "models" or path.name == "model"
    file = path / ".snakemake_timestamp" if folder else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (when, when))


def batch_of(study: Study, name: str) -> Batch:
    """The batch of this name, or the one that this evaluation is in."""
    return next(b for b in batches(study, {}) if name in (b.name, *b.evaluations))


def reasons(study: Study, results: Path) -> dict[tuple[str, str], str]:
    return {(j.stage, j.name): j.why for j in plan_of(study, results) if j.why}


def samples_of(name: str, study: Study, files: Results) -> list[Path]:
    made = [files.evaluation(e) for e in batch_of(study, name).evaluations]
    return [*(each.samples for each in made), *(each.samples_card for each in made)]


def data_of(files) -> list[Path]:
    return [files.problems, files.card]


def report_of(study: Study, files: Results) -> list[Path]:
    page = files.report
    tables = [page.table(name, kind) for name in study.size.tables for kind in ("html", "tex", "csv")]
    return [page.page, page.figures, page.claims, page.compliance, *tables]


OUTPUTS = {
    "dataset": lambda name, _, files: data_of(files.dataset(name)),
    "model": lambda name, _, files: [files.model(name).folder],
    "training_data": lambda name, study, files: data_of(
        files.training_data(study.training_data[name].dataset.id, name)
    ),
    "neighbors": lambda name, _, files: [files.neighbors(name).table],
    "diagnostics": lambda name, _, files: [files.diagnostics(name)],
    "train": lambda name, _, files: [files.run(name).model],
    "sample": samples_of,
    "grade": lambda name, _, files: [files.evaluation(name).grades],
    "analyze": lambda name, _, files: [files.table(name), files.exploration(name), files.excerpts(name)],
    "notebook": lambda name, _, files: [files.report.notebook(name)],
    "report": lambda _, study, files: report_of(study, files),
}
"""The files that a job of each stage writes."""


def test_nothing_is_planned_twice_and_everything_is_planned(paper: Study, tmp_path: Path) -> None:
    jobs = plan_of(paper, tmp_path / "paper")
    assert len({(j.stage, j.name) for j in jobs}) == len(jobs)
    by_stage = {s: sum(j.stage == s for j in jobs) for s in OUTPUTS}
    assert by_stage["train"] == len(paper.runs)
    assert by_stage["grade"] == len(paper.evaluations) > by_stage["sample"] == len(batches(paper, {}))
    assert by_stage["analyze"] == len(paper.cells)
    for i, job in enumerate(jobs):
        assert all(jobs.index(needed) < i for needed in job.needs)


def test_batches_share_an_engine_and_draw_nothing_that_a_target_does_not_need(paper: Study) -> None:
    assert sorted(e for b in batches(paper, {}) for e in b.evaluations) == sorted(paper.evaluations)
    of_base = {b.benchmarks for b in batches(paper, {}) if b.system == "r1-qwen-1.5b/standard"}
    assert ("aime25", "amc23", "math500") in of_base
    assert ("gpqa-diamond",) in of_base  # table 2 alone
    for name, cells in paper.cells.items():
        needed = {cell.evaluation for cell in cells}
        drawn = {e for b in batches(paper, {}) if needed & set(b.evaluations) for e in b.evaluations}
        assert drawn == needed, name
    for batch in batches(paper, {}):
        assert len({paper.evaluations[e].policy.digest for e in batch.evaluations}) == 1


def test_a_target_takes_only_what_it_needs(paper: Study, tmp_path: Path) -> None:
    results = tmp_path / "paper"
    jobs = plan_of(paper, results, "table12")
    assert {j.name for j in jobs if j.stage == "train"} == {f"ngrpo{m}-r1-qwen-1.5b" for m in ("", "-l2", "-l1")}
    assert {j.name for j in plan_of(paper, results, "ablation-metric")} == {j.name for j in jobs}
    assert {j.stage for j in plan_of(paper, results, "fetch")} == {"dataset", "model"}
    with pytest.raises(UserError, match=r"(?s)no target 'table21'.*did you mean 'table"):
        plan_of(paper, results, "table21")


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("toy", {"model"}),
        ("toy.cosine.k3", {"model", "neighbors"}),
        ("diagnostics-ngrpo-toy", {"dataset", "model", "neighbors", "diagnostics"}),
        ("grpo-toy", {"dataset", "model", "training_data", "train"}),
        ("report", set(OUTPUTS)),
        ("crate", {*OUTPUTS, "crate"}),
        ("{results}/report/claims.json", set(OUTPUTS)),
        ("{results}/data/toy-held-out.parquet", {"dataset"}),
    ],
)
def test_every_target_of_snakemake_is_one(target: str, stages: set[str], tmp_path: Path) -> None:
    study, results = load_study(CONFIG, "toy"), tmp_path / "toy"
    assert {j.stage for j in plan_of(study, results, target.format(results=results))} == stages


PLANNED = [("toy", "all"), ("paper", "figure1")]


@pytest.mark.parametrize(("scale", "target"), PLANNED)
def test_the_command_snakemake_lists_the_same_jobs(scale: str, target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "-n", target, "--cores", "1", "--config"]
    settings = [f"scale={scale}", f"results={tmp_path}"]
    printed = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counted = Counter()
    for words in map(str.split, printed.rpartition("\njob ")[2].splitlines()):
        stage = "sample" if words and words[0].startswith("sample-") else words[0] if words else ""
        counted.update({stage: int(words[1])} if len(words) == 2 and stage in OUTPUTS else {})
    study = load_study(CONFIG, scale)
    assert counted == Counter(j.stage for j in plan_of(study, tmp_path / scale, target))


def test_planning_locks_nothing_prints_nothing_and_changes_nothing_that_is_made(tmp_path: Path, capfd) -> None:
    study, results = load_study(CONFIG, "toy"), tmp_path / "toy"
    path = Results(results).run("grpo-toy").spec
    make(path, 5)
    path.write_text("{}")
    os.utime(path, (5, 5))
    assert plan_of(study, results, "grpo-toy")
    assert capfd.readouterr() == ("", "")
    assert (path.read_text(), path.stat().st_mtime) == ("{}", 5)
    assert not list((ROOT / ".snakemake" / "locks").iterdir())


def test_without_a_snakefile_planning_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(CONFIG, "toy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no Snakefile here"):
        planned_jobs(study, Results(tmp_path / "toy"), Costs(study, Results(tmp_path / "toy")))


def test_low_and_high_add_up(paper: Study, tmp_path: Path) -> None:
    results = tmp_path / "paper"
    jobs = plan_of(paper, results)
    one = next(j for j in jobs if j.stage == "train" and j.name == "grpo-r1-qwen-7b")
    steps = 40000 // 64
    assert one.device_hours.low == pytest.approx(steps * 150 / 3600 * 8)
    assert one.device_hours.high == pytest.approx(steps * 450 / 3600 * 8)
    everywhere, on_one = wall_time(jobs), wall_time(jobs, 1)
    assert 0 < everywhere.low < everywhere.high < on_one.high
    assert on_one.low >= sum(j.device_hours.low for j in jobs) / 8
    assert "2.5 an hour" in text(jobs, paper, results)
    assert "declared estimates" in text(jobs, paper, results)
    assert "100 an hour" in text(jobs, paper, results, rate=100.0)


def test_a_finished_study_has_nothing_to_do_and_costs_nothing(finished) -> None:
    study, results = finished
    jobs = plan_of(study, results)
    assert [(j.stage, j.name, j.why) for j in jobs if j.why] == []
    assert "Nothing to be done." in text(jobs, study, results)
    assert sum(j.device_hours.high for j in jobs) == 0


def test_what_is_lacking_and_what_waits_for_it_run(finished) -> None:
    study, results = finished
    lost = next(e for e in study.evaluations if e.startswith("grpo-") and e.endswith("amc23"))
    Results(results).evaluation(lost).samples.unlink()
    assert reasons(study, results) == {}, "samples whose grades are there may be deleted"
    Results(results).evaluation(lost).grades.unlink()
    jobs = {(j.stage, j.name): j for j in plan_of(study, results) if j.why}
    running, batch = {key: job.why for key, job in jobs.items()}, batch_of(study, lost)
    assert len(batch.benchmarks) > 1
    assert running["sample", batch.name] == "amc23: not made yet"
    one = Costs(study, Results(results)).sample(study.evaluations[lost])
    assert jobs["sample", batch.name].wall == one  # the batch's other samples stay
    assert running["grade", lost] == "not made yet"
    assert running["analyze", "main"].endswith("is to be made")
    assert ("report", "report") in running
    assert not any(stage in ("train", "model", "dataset") for stage, _ in running)


def test_a_changed_value_is_named_and_reruns_what_depends_on_it(finished) -> None:
    study, results = finished
    run = next(r for r in study.runs if r.startswith("ngrpo"))
    path = results / "runs" / run / "spec.json"
    value = json.loads(study.runs[run].text())
    value["exploration"]["rho"] = 0.4
    path.write_text(json.dumps(value))
    running = reasons(study, results)
    assert running["train", run] == "its spec has changed: exploration.rho 0.4 → 0.1"
    assert {name for stage, name in running if stage == "train"} == {run}
    assert all(name.startswith(run) for stage, name in running if stage in ("sample", "grade"))


def test_a_changed_model_reruns_itself_and_is_named_once(finished) -> None:
    study, results = finished
    model = next(iter(study.models))
    path = results / "models" / f"{model}.spec.json"
    value = json.loads(path.read_text())
    value["model"]["source"]["revision"] = "old"
    path.write_text(json.dumps(value))
    running = reasons(study, results)
    change = f'model.source.revision "old" → "{study.models[model].model.source.revision}"'
    assert running["model", model] == f"its spec has changed: {change}"
    assert {stage for stage, _ in running} == set(OUTPUTS) - {"dataset"}

    run = next(iter(study.runs))
    value = json.loads(study.runs[run].text())
    value["model"]["model"]["source"]["revision"] = value["data"]["model"]["model"]["source"]["revision"] = "old"
    (results / "runs" / run / "spec.json").write_text(json.dumps(value))
    assert study.runs[run].model.id == model
    assert reasons(study, results)["train", run] == f"its spec has changed: model.{change}"


def test_a_newer_input_or_spec_makes_a_job_run_and_an_older_one_does_not(finished) -> None:
    study, results = finished
    evaluation = next(e for e in study.evaluations if e.startswith("ngrpo") and e.endswith("amc23"))
    policy, files = evaluation.split("/")[0], Results(results)
    make(files.run(policy).model, 0)
    batch = batch_of(study, evaluation).name
    assert ("sample", batch) not in reasons(study, results)
    make(files.run(policy).model, time.time())
    running = reasons(study, results)
    assert running["sample", batch] == f"train {policy} is newer"
    assert ("train", policy) not in running

    table = next(iter(study.neighbors))
    assert ("neighbors", table) not in running
    os.utime(files.spec(study.neighbors[table].digest))
    assert reasons(study, results)["neighbors", table] == "its spec is newer"


def test_a_schedule_never_holds_more_devices_than_nodes_have(paper: Study, tmp_path: Path) -> None:
    jobs = plan_of(paper, tmp_path / "paper", "table12")
    trains = [j for j in jobs if j.stage == "train"]
    one, three, many = wall_time(jobs, 1), wall_time(jobs, 3), wall_time(jobs)
    assert len(trains) == 3
    assert one.low >= sum(j.wall.low for j in trains)
    assert one.low > three.low >= many.low
    assert wall_time(jobs, 100) == many
    again = plan_of(load_study(CONFIG, "paper"), tmp_path / "paper", "table12")
    assert wall_time(jobs, 2) == wall_time(again, 2)
    chain = max(j.wall.high for j in trains) + max(j.wall.high for j in jobs if j.stage == "sample")
    assert many.high >= chain


def lose(run: str, results: Path) -> None:
    """Everything of a run is gone, its evaluations too: a run between finished files would be taken for done."""
    for kind in ("runs", "evaluations"):
        shutil.rmtree(results / kind / run)


def test_the_ledger_tells_what_is_to_come(finished) -> None:
    study, results = finished
    jobs = len(study.runs) + len(batches(study, {}))
    assert f"to come   – GPU-hours, 0 of {jobs} jobs" in ledger(study, results)
    run = next(r for r in study.runs if r.startswith("grpo"))
    lose(run, results)
    left = [j for j in plan_of(study, results) if j.why and j.devices]
    text = ledger(study, results)
    assert f"{len(left)} of {jobs} jobs" in text
    assert len(left) > 1


def test_measured_steps_replace_declared_ones_and_the_ledger_adds_them_up(finished) -> None:
    study, results = finished
    run = next(r for r in study.runs if r.startswith("ngrpo"))
    folder = results / "runs" / run
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": i, "seconds/step": 36.0}) + "\n" for i in range(1, 11)) + '{"step": 11, "sec'
    )
    (folder / "verl.json").write_text(json.dumps({"trainer": {"n_gpus_per_node": 8, "nnodes": 2, "device": "cuda"}}))
    other = next(r for r in study.runs if r.startswith("grpo"))
    lose(other, results)
    costs = Costs(study, Results(results))
    [job] = [j for j in plan_of(study, results) if (j.stage, j.name) == ("train", other)]
    steps = costs.total_steps(study.runs[other])
    assert job.wall == Span(steps * 0.01, steps * 0.01, True)
    assert costs.train(study.runs[other], steps, declared=True).low == pytest.approx(steps * 60 / 3600)
    line = next(line for line in ledger(study, results).splitlines() if line.startswith(f"train {run} "))
    assert "10 of" in line
    assert "1.6" in line  # 10 × 36 s on 16 GPUs
    assert line.split()[-2:] == ["0.10", "–"]


def test_measured_samples_replace_declared_rates_and_lengths(finished) -> None:
    study, results = finished
    base = [e for e in study.evaluations if e.startswith("r1-qwen-1.5b/standard/")]
    one, other = base[0], base[1]
    spec, samples = study.evaluations[one], results / "evaluations" / f"{one}.samples.parquet"
    card = json.loads(samples.with_suffix(".card.json").read_text())
    answers = card["samples"]
    samples.with_suffix(".card.json").write_text(json.dumps({**card, "tokens": 100 * answers}))
    samples.with_suffix(".time.json").write_text(json.dumps({"seconds": 3600.0, "devices": 1, "gpu": True}))
    costs = Costs(study, Results(results))
    assert costs.sample(spec).measured
    assert costs.sample(spec).low == costs.sample(spec).high == pytest.approx(1.0)
    ratio = costs.sample(study.evaluations[other], declared=True).low / costs.sample(spec, declared=True).low
    assert costs.sample(study.evaluations[other]).low == pytest.approx(ratio)
    assert not costs.sample(spec, declared=True).measured


def test_an_unfinished_run_costs_its_remaining_steps(finished) -> None:
    study, results = finished
    run = next(r for r in study.runs if r.startswith("ngrpo"))
    shutil.rmtree(results / "runs" / run / "model")
    (results / "runs" / run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": i, "seconds/step": 36.0}) + "\n" for i in range(1, 21))
    )
    costs = Costs(study, Results(results))
    assert ("train", run) not in reasons(study, results), "a model whose samples are there may be deleted"
    [job] = [j for j in plan_of(study, results, run) if (j.stage, j.name) == ("train", run)]
    steps = costs.total_steps(study.runs[run])
    assert job.why == f"stopped at step 20 of {steps}"
    assert job.wall.high == pytest.approx((steps - 20) * 0.01)


def test_specs_are_compared_value_by_value(paper: Study) -> None:
    spec = next(iter(paper.runs.values()))
    value = json.loads(spec.text())
    assert changed_values(spec, value) == ""
    value["training"]["group"], value["objective"]["clip_low"], value["seed"] = 16, 0.1, 7
    value["data"]["benchmarks"][0]["dataset"]["rows"] = value["validation"]["dataset"]["rows"] = 12
    changed = changed_values(spec, value)
    assert changed.startswith("seed 7 → 1, training.group 16 → 4")
    assert changed.endswith("and 2 more")
