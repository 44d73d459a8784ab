"""Declared costs: every model of every scale has them, and mistakes in config/costs.yaml are named."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from synthetic_study import ROOT, make_study

from ngrpo.errors import UserError
from ngrpo.planning.costs import Costs
from ngrpo.planning.disk import SPARE, room
from ngrpo.planning.jobs import planned_jobs
from ngrpo.planning.text import ledger_text, plan_text
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results

CONFIG = ROOT / "config"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["scales"]["paper"]["models"]["r1-qwen-1.5b"].update(step_seconds=[9, 3]),
            "no range from low to high",
        ),
        (lambda v: v["scales"]["paper"]["minutes"].update(grade=[3, -1]), "grade: 3.0 to -1.0 is no range"),
        (lambda v: v.update(curency="EUR"), "did you mean 'currency'"),
    ],
)
def test_broken_costs_are_named(tmp_path: Path, change, message: str) -> None:
    study, results = make_study(tmp_path, "paper", problems=1), Results(tmp_path / "paper")
    value = yaml.safe_load((CONFIG / "costs.yaml").read_text())
    change(value)
    (study.folder / "costs.yaml").write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match=message):
        planned_jobs(study, results, Costs(study, results), "grpo-r1-qwen-1.5b")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v["scales"]["toy"]["models"].pop("toy"), "the model 'toy': hours that nothing has measured"),
        (
            lambda v: v["scales"].pop("toy"),
            "the scale 'mine': hours that nothing has measured are left out; add scales.mine",
        ),
        (None, "the scale 'mine'"),
    ],
)
def test_a_scale_or_model_without_costs_is_planned_and_says_what_to_add(tmp_path: Path, change, says: str) -> None:
    made = make_study(tmp_path, problems=1)
    value = yaml.safe_load((CONFIG / "costs.yaml").read_text())
    scale = "mine" if "mine" in says else "toy"
    if change:
        change(value)
        (made.folder / "costs.yaml").write_text(yaml.safe_dump(value))
    (made.folder / "scales" / f"{scale}.yaml").write_bytes((made.folder / "scales" / "toy.yaml").read_bytes())
    study, results = load_study(made.folder, scale), Results(tmp_path / "elsewhere" / scale)
    costs = Costs(study, results)
    jobs = planned_jobs(study, results, costs)
    assert {"train", "sample", "report"} <= {job.stage for job in jobs if job.why}
    assert says in plan_text(jobs, costs)
    assert says in ledger_text(study, results, jobs, costs)


@pytest.mark.parametrize("scale", ["toy", "smoke", "paper"])
def test_every_model_of_every_scale_has_costs(scale: str, tmp_path: Path) -> None:
    study = load_study(CONFIG, scale)
    costs = Costs(study, Results(tmp_path / scale))
    assert all(costs.train(spec, costs.total_steps(spec)).high > 0 for spec in study.runs.values())
    assert all(costs.sample(spec).high > 0 for spec in study.evaluations.values())


def test_a_study_of_a_users_files_is_planned_with_their_folder(tmp_path: Path) -> None:
    study, files = load_study(CONFIG, "smoke"), Results(tmp_path / "smoke")
    data = tmp_path / "data"
    for spec in study.datasets.values():
        if spec.dataset.source.kind == "folder":
            (data / spec.dataset.source.file).parent.mkdir(parents=True, exist_ok=True)
            (data / spec.dataset.source.file).touch()
    costs = Costs(study, files)
    jobs = planned_jobs(study, files, costs, data_folder=data)
    assert "train" in ledger_text(study, files, jobs, costs)
    with pytest.raises(UserError, match="none is named"):
        planned_jobs(study, files, costs)


def test_room_follows_from_parameters_and_from_what_is_kept(tmp_path: Path) -> None:
    study = load_study(CONFIG, "paper")
    costs = Costs(study, Results(tmp_path))
    P, dtype = 7.62e9, 2
    one = room(study, costs, models=["r1-qwen-7b"], runs=["grpo-r1-qwen-7b"], evaluations=[])
    assert one.stays == pytest.approx(SPARE + 2 * dtype * P)
    assert one.one == one.many == pytest.approx(one.stays + 3 * 12 * P + 3 * dtype * P)
    runs = ["grpo-r1-qwen-7b", "ngrpo-r1-qwen-7b", "grpo-r1-qwen-1.5b"]
    many = room(study, costs, models=[], runs=runs, evaluations=[])
    two = room(study, costs, models=[], runs=runs, evaluations=[], at_once=2)
    assert many.one < two.many < many.many
    assert many.one == two.one
    keeps = replace(study, size=study.size.model_copy(update={"keep_checkpoints": True}))
    keeping = room(keeps, costs, models=[], runs=runs, evaluations=[])
    assert keeping.stays - many.stays == pytest.approx(2 * 12 * (2 * P + 1.78e9))
    assert keeping.many == pytest.approx(many.many)  # two of the three at the peak are those that stay


def test_the_plan_says_what_it_takes_on_disk_and_for_which_model_it_cant(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "paper", problems=1), Results(tmp_path / "paper")
    value = yaml.safe_load((CONFIG / "costs.yaml").read_text())
    (study.folder / "costs.yaml").write_text(yaml.safe_dump(value))
    for undeclared in (False, True):
        if undeclared:
            del value["scales"]["paper"]["models"]["r1-qwen-1.5b"]["parameters"]
            (study.folder / "costs.yaml").write_text(yaml.safe_dump(value))
        costs = Costs(study, results)
        text = plan_text(planned_jobs(study, results, costs, "all"), costs, study=study, nodes=2)
        assert re.search(r"^disk .* GB with one training at a time, .* GB with 2; .* stay$", text, re.MULTILINE)
        assert ("Not in it: r1-qwen-1.5b" in text) == undeclared
