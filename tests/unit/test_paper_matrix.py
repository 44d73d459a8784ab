"""The paper's whole matrix: every table's cells, each run and evaluation once, and its targets."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from ngrpo.errors import UserError
from ngrpo.files import digest
from ngrpo.study.expand import Study, load_study
from ngrpo.study.specs import RunSpec

CONFIG = Path(__file__).resolve().parents[2] / "config"
REASONING = ("r1-qwen-1.5b", "r1-qwen-7b")
TARGETS = {
    *(f"table{n}" for n in range(1, 15)),
    *("figure1", "figure3", "appendix-e", "released", "main", "objective"),
    *(f"ablation-{name}" for name in ("rho", "metric", "strategy", "inference")),
}


@pytest.fixture(scope="module")
def paper() -> Study:
    """The study at the paper's scale."""
    return load_study(CONFIG, "paper")


def identities(study: Study) -> Counter:
    """How often each run and evaluation is made: its spec without the names that it is asked for under."""

    def of(spec) -> str:
        value = spec.json_value()
        if isinstance(spec, RunSpec):
            return digest({**value, "id": ""})
        return digest({**value, "decoding_id": "", "policy": {**value["policy"], "id": ""}})

    return Counter(of(spec) for spec in (*study.runs.values(), *study.evaluations.values()))


def test_every_distinct_spec_is_made_exactly_once(paper: Study) -> None:
    assert set(identities(paper).values()) == {1}
    asked = {(label.method, model) for table in paper.cells for label, model in rows_of(paper, table)}
    trained = {pair for pair in asked if pair[0] is not None}
    assert len(paper.runs) == len(trained)  # no two of the paper's methods are the same
    cells = [cell for table in paper.cells.values() for cell in table]
    assert len(paper.evaluations) == len({cell.evaluation for cell in cells}) < len(cells)


def rows_of(study: Study, table: str):
    """(row, model) of a table's cells."""
    shown = study.study.tables[table]
    for row in shown.rows:
        for model in shown.models or study.size.models:
            if row.models is None or model in row.models:
                yield row, model


def test_a_second_name_for_a_method_trains_nothing_and_another_value_does(paper: Study, tmp_path: Path) -> None:
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales" / "paper.yaml").write_text((CONFIG / "scales" / "paper.yaml").read_text())

    def with_method(**exploration) -> Study:
        study = yaml.safe_load((CONFIG / "study.yaml").read_text())
        study["methods"]["another"] = {"title": "x", "exploration": {"kind": "neighbors", **exploration}}
        study["tables"]["table11"]["rows"].append({"label": "another", "method": "another"})
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        return load_study(tmp_path, "paper")

    same, other = with_method(rho=0.1), with_method(rho=0.3)
    assert len(same.runs) == len(paper.runs)
    assert len(same.evaluations) == len(paper.evaluations)
    assert len(other.runs) == len(paper.runs) + 1
    assert len(other.evaluations) == len(paper.evaluations) + 3
    assert set(identities(same).values()) == set(identities(other).values()) == {1}


def test_every_table_figure_and_ablation_is_a_target(paper: Study) -> None:
    assert set(paper.cells) | set(paper.size.targets) == TARGETS
    assert all(name in paper.products for names in paper.size.targets.values() for name in names)


def test_a_target_of_something_unknown_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scales").mkdir()
    (tmp_path / "study.yaml").write_text((CONFIG / "study.yaml").read_text())
    size = yaml.safe_load((CONFIG / "scales" / "paper.yaml").read_text())
    size["targets"]["figure3"] = ["table01"]
    (tmp_path / "scales" / "paper.yaml").write_text(yaml.safe_dump(size))
    with pytest.raises(UserError, match=r"(?s)table01.*targets.figure3.*did you mean 'table1"):
        load_study(tmp_path, "paper")


def test_rows_that_a_model_does_not_have_make_no_cell(paper: Study) -> None:
    labels = {model: {c.label for c in paper.cells["table1"] if c.model == model} for model in paper.models}
    for model, present in labels.items():
        assert ("Soft Thinking" in present) == (model in REASONING)
        assert {"Base", "GRPO", "STHT", "N-GRPO"} <= present


def test_released_runs_differ_from_the_papers_as_the_scripts_say(paper: Study) -> None:
    small, large = (paper.runs[f"ngrpo-release-{model}"] for model in REASONING)
    assert (small.exploration.k, small.exploration.rho) == (2, 0.1)
    assert (small.training.learning_rate, small.objective.kl_coefficient) == (5e-7, 0.01)
    assert (large.exploration.k, large.exploration.rho) == (3, 0.15)
    ours = paper.runs["ngrpo-r1-qwen-1.5b"]
    assert (ours.exploration.k, ours.exploration.rho, ours.training.temperature) == (3, 0.1, 0.7)
    assert small.training.temperature == 1.0
