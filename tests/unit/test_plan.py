"""What a study would cost, what of it is done and why the rest would run; what was spent."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from synthetic_study import ROOT, make_study

from ngrpo.errors import UserError
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.plan import Plan, changed_values, ledger_text, plan_text
from ngrpo.study.expand import Batch, Study, load_study

CONFIG = ROOT / "config"


def costs_of(study: Study, results: Path, folder: Path = CONFIG) -> Costs:
    return Costs(folder, study.scale, results, study.runs, study.evaluations)


def plan_of(study: Study, results: Path, target: str = "all") -> Plan:
    return Plan(study, results, costs_of(study, results), target)


def text(plan: Plan, **options) -> str:
    return plan_text(plan, **{"rate": None, "nodes": None, "every_job": False, **options})


@pytest.fixture(scope="module")
def paper() -> Study:
    return load_study(CONFIG, "paper")


@pytest.fixture
def finished(tmp_path: Path):
    """A finished synthetic study at paper scale, with all files that jobs would write."""
    study, results = make_study(tmp_path, "paper", problems=6), tmp_path / "paper"
    for spec in study.specs():
        os.utime(results / spec, (0, 0))
    for when, job in enumerate(plan_of(study, results).jobs, start=1):
        for path in OUTPUTS[job.stage](job.name, study):
            (results / path).parent.mkdir(parents=True, exist_ok=True)
            if not (results / path).exists():
                (results / path).touch()
            os.utime(results / path, (when, when))
    return study, results


def batch_of(study: Study, name: str) -> Batch:
    """The batch of this name, or the one that this evaluation is in."""
    return next(b for b in study.batches if name in (b.name, *b.evaluations))


def reasons(study: Study, results: Path) -> dict[tuple[str, str], str]:
    return {(j.stage, j.name): j.why for j in plan_of(study, results).jobs if j.why}


OUTPUTS = {
    "dataset": lambda name, _: [f"data/{name}.parquet"],
    "model": lambda name, _: [f"models/{name}"],
    "training_data": lambda name, study: [f"data/{study.training_data[name].dataset.id}.{name}.parquet"],
    "neighbors": lambda name, _: [f"neighbors/{name}.safetensors"],
    "diagnostics": lambda name, _: [f"diagnostics/{name}.json"],
    "train": lambda name, _: [f"runs/{name}/model"],
    "sample": lambda name, study: [f"evaluations/{e}.samples.parquet" for e in batch_of(study, name).evaluations],
    "grade": lambda name, _: [f"evaluations/{name}.grades.parquet"],
    "analyze": lambda name, _: [f"analysis/{name}.parquet"],
    "notebook": lambda *_: ["report/results.ipynb"],
    "report": lambda *_: ["report/index.html"],
}


def test_nothing_is_planned_twice_and_everything_is_planned(paper: Study, tmp_path: Path) -> None:
    jobs = plan_of(paper, tmp_path).jobs
    assert len({(j.stage, j.name) for j in jobs}) == len(jobs)
    by_stage = {s: sum(j.stage == s for j in jobs) for s in OUTPUTS}
    assert by_stage["train"] == len(paper.runs)
    assert by_stage["grade"] == len(paper.evaluations) > by_stage["sample"] == len(paper.batches)
    assert by_stage["analyze"] == len(paper.cells)
    for i, job in enumerate(jobs):
        assert all(jobs.index(needed) < i for needed in job.needs)


def test_batches_share_an_engine_and_draw_nothing_that_a_target_does_not_need(paper: Study) -> None:
    assert sorted(e for b in paper.batches for e in b.evaluations) == sorted(paper.evaluations)
    batches = {b.system: {x.benchmarks for x in paper.batches if x.system == b.system} for b in paper.batches}
    assert ("aime25", "amc23", "math500") in batches["r1-qwen-1.5b/standard"]
    assert ("gpqa-diamond",) in batches["r1-qwen-1.5b/standard"]  # table 2 alone
    for name, cells in paper.cells.items():
        needed = {cell.evaluation for cell in cells}
        drawn = {e for b in paper.batches if needed & set(b.evaluations) for e in b.evaluations}
        assert drawn == needed, name
    for batch in paper.batches:
        assert len({paper.evaluations[e].policy.digest for e in batch.evaluations}) == 1


def test_a_target_takes_only_what_it_needs(paper: Study, tmp_path: Path) -> None:
    jobs = plan_of(paper, tmp_path, "table12").jobs
    assert {j.name for j in jobs if j.stage == "train"} == {f"ngrpo{m}-r1-qwen-1.5b" for m in ("", "-l2", "-l1")}
    assert {j.name for j in plan_of(paper, tmp_path, "ablation-metric").jobs} == {j.name for j in jobs}
    assert {j.stage for j in plan_of(paper, tmp_path, "fetch").jobs} == {"dataset", "model"}
    with pytest.raises(UserError, match=r"(?s)no target 'table21'.*did you mean 'table"):
        plan_of(paper, tmp_path, "table21")


PLANNED = [("toy", "all"), ("paper", "all"), ("paper", "table12"), ("paper", "figure1")]


@pytest.mark.parametrize(("scale", "target"), PLANNED)
def test_snakemake_plans_the_same_jobs(scale: str, target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "-n", target, "--cores", "1", "--config"]
    settings = [f"scale={scale}", f"results={tmp_path}"]
    told = subprocess.run([*command, *settings], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counted = Counter()
    for words in map(str.split, told.rpartition("\njob ")[2].splitlines()):
        stage = "sample" if words and words[0].startswith("sample-") else words[0] if words else ""
        counted.update({stage: int(words[1])} if len(words) == 2 and stage in OUTPUTS else {})
    study = load_study(CONFIG, scale)
    assert counted == Counter(j.stage for j in plan_of(study, tmp_path / scale, target).jobs)


def test_low_and_high_add_up(paper: Study, tmp_path: Path) -> None:
    plan = plan_of(paper, tmp_path)
    train = [j for j in plan.jobs if j.stage == "train" and "7b" in j.name]
    one = train[0]
    steps = 40000 // 64
    assert one.device_hours.low == pytest.approx(steps * 150 / 3600 * 8)
    assert one.device_hours.high == pytest.approx(steps * 450 / 3600 * 8)
    everywhere, on_one = plan.wall(), plan.wall(1)
    assert 0 < everywhere.low < everywhere.high < on_one.high
    assert on_one.low >= sum(j.device_hours.low for j in plan.jobs) / 8
    assert "2.5 an hour" in text(plan)
    assert "declared estimates" in text(plan)
    assert "100 an hour" in text(plan, rate=100.0)


def test_a_finished_study_has_nothing_to_do_and_costs_nothing(finished) -> None:
    study, results = finished
    plan = plan_of(study, results)
    assert [j.name for j in plan.jobs if j.why] == []
    assert "Nothing to be done." in text(plan)
    assert sum(j.device_hours.high for j in plan.jobs) == 0


def test_what_is_lacking_and_what_waits_for_it_run(finished) -> None:
    study, results = finished
    lost = next(e for e in study.evaluations if e.startswith("grpo-") and e.endswith("amc23"))
    (results / "evaluations" / f"{lost}.samples.parquet").unlink()
    jobs = {(j.stage, j.name): j for j in plan_of(study, results).jobs if j.why}
    running, batch = {key: job.why for key, job in jobs.items()}, batch_of(study, lost)
    assert len(batch.benchmarks) > 1
    assert running["sample", batch.name] == "amc23: not made yet"
    one = costs_of(study, results).sample(study.evaluations[lost])
    assert jobs["sample", batch.name].wall == one  # the batch's other samples stay
    assert running["grade", lost] == f"sample {batch.name} is to be made"
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
    told = f'model.source.revision "old" → "{study.models[model].model.source.revision}"'
    assert running["model", model] == f"its spec has changed: {told}"
    assert {stage for stage, _ in running} == set(OUTPUTS) - {"dataset"}

    run = next(iter(study.runs))
    value = json.loads(study.runs[run].text())
    value["model"]["model"]["source"]["revision"] = value["data"]["model"]["model"]["source"]["revision"] = "old"
    (results / "runs" / run / "spec.json").write_text(json.dumps(value))
    assert study.runs[run].model.id == model
    assert reasons(study, results)["train", run] == f"its spec has changed: model.{told}"


def test_a_newer_input_or_spec_makes_a_job_run_and_an_older_one_does_not(finished) -> None:
    study, results = finished
    evaluation = next(e for e in study.evaluations if e.startswith("ngrpo") and e.endswith("amc23"))
    policy = evaluation.split("/")[0]
    os.utime(results / "runs" / policy / "model", (0, 0))
    batch = batch_of(study, evaluation).name
    assert ("sample", batch) not in reasons(study, results)
    os.utime(results / "runs" / policy / "model", (10_000, 10_000))
    running = reasons(study, results)
    assert running["sample", batch] == f"train {policy} is newer"
    assert ("train", policy) not in running

    table = next(iter(study.neighbors))
    assert ("neighbors", table) not in running
    os.utime(results / "neighbors" / f"{table}.spec.json", (10_000, 10_000))
    assert reasons(study, results)["neighbors", table] == "its spec is newer"


def test_a_schedule_never_holds_more_devices_than_nodes_have(paper: Study, tmp_path: Path) -> None:
    plan = plan_of(paper, tmp_path, "table12")
    trains = [j for j in plan.jobs if j.stage == "train"]
    one, three, many = plan.wall(1), plan.wall(3), plan.wall()
    assert len(trains) == 3
    assert one.low >= sum(j.wall.low for j in trains)
    assert one.low > three.low >= many.low
    assert plan.wall(100) == many
    assert plan_of(paper, tmp_path).wall(4) == plan_of(load_study(CONFIG, "paper"), tmp_path).wall(4)
    chain = max(j.wall.high for j in trains) + max(j.wall.high for j in plan.jobs if j.stage == "sample")
    assert many.high >= chain


def test_the_ledger_tells_what_is_to_come(finished) -> None:
    study, results = finished
    jobs = len(study.runs) + len(study.batches)
    costs = costs_of(study, results)
    assert f"to come   – GPU-hours, 0 of {jobs} jobs" in ledger_text(study, results, costs)
    run = next(r for r in study.runs if r.startswith("grpo"))
    shutil.rmtree(results / "runs" / run)
    left = [j for j in plan_of(study, results).jobs if j.why and j.devices]
    told = ledger_text(study, results, costs_of(study, results))
    assert f"{len(left)} of {jobs} jobs" in told
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
    shutil.rmtree(results / "runs" / other)
    costs = costs_of(study, results)
    [job] = [j for j in Plan(study, results, costs).jobs if (j.stage, j.name) == ("train", other)]
    steps = costs.total_steps(study.runs[other])
    assert job.wall == Span(steps * 0.01, steps * 0.01, True)
    assert costs.train(study.runs[other], steps, declared=True).low == pytest.approx(steps * 60 / 3600)
    line = next(line for line in ledger_text(study, results, costs).splitlines() if line.startswith(f"train {run} "))
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
    costs = costs_of(study, results)
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
    costs = costs_of(study, results)
    [job] = [j for j in Plan(study, results, costs).jobs if (j.stage, j.name) == ("train", run)]
    steps = costs.total_steps(study.runs[run])
    assert job.why == f"stopped at step 20 of {steps}"
    assert job.wall.high == pytest.approx((steps - 20) * 0.01)


def test_specs_are_compared_value_by_value(paper: Study, tmp_path: Path) -> None:
    spec = next(iter(paper.runs.values()))
    (tmp_path / "spec.json").write_text(spec.text())
    assert changed_values(spec, tmp_path / "spec.json") == ""
    assert changed_values(spec, tmp_path / "none.json") == ""
    value = json.loads(spec.text())
    value["training"]["group"], value["objective"]["clip_low"], value["seed"] = 16, 0.1, 7
    value["data"]["benchmarks"][0]["dataset"]["rows"] = value["validation"]["dataset"]["rows"] = 12
    (tmp_path / "spec.json").write_text(json.dumps(value))
    told = changed_values(spec, tmp_path / "spec.json")
    assert told.startswith("seed 7 → 1, training.group 16 → 4")
    assert told.endswith("and 2 more")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json"):
        changed_values(spec, tmp_path / "spec.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["scales"]["paper"]["models"].pop("r1-qwen-7b"),
            "no costs are declared for the model 'r1-qwen-7b'",
        ),
        (
            lambda v: v["scales"]["paper"]["models"]["r1-qwen-7b"].update(step_seconds=[9, 3]),
            "no range from low to high",
        ),
        (lambda v: v["scales"]["paper"]["minutes"].update(grade=[3, -1]), "grade: 3.0 to -1.0 is no range"),
        (lambda v: v["scales"].pop("paper"), "no scale 'paper'"),
        (lambda v: v.update(curency="EUR"), "did you mean 'currency'"),
    ],
)
def test_broken_costs_are_named(paper: Study, tmp_path: Path, change, message: str) -> None:
    value = yaml.safe_load((CONFIG / "costs.yaml").read_text())
    change(value)
    (tmp_path / "costs.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match=message):
        Plan(paper, tmp_path, costs_of(paper, tmp_path, tmp_path))


@pytest.mark.parametrize("scale", ["toy", "smoke", "paper"])
def test_every_model_of_every_scale_has_costs(scale: str, tmp_path: Path) -> None:
    study = load_study(CONFIG, scale)
    assert sum(j.wall.high for j in plan_of(study, tmp_path).jobs) > 0
    assert "train" in ledger_text(study, tmp_path, costs_of(study, tmp_path))
