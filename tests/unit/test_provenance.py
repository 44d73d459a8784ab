"""The page's settings: each said once, runs that differ in nothing but their seed in one column."""

from pathlib import Path

from ngrpo.audit.provenance import run_settings
from ngrpo.study.expand import load_study

CONFIG = Path(__file__).parents[2] / "config"


def test_seeds_share_a_column_and_what_all_have_is_said_once() -> None:
    study = load_study(CONFIG, "toy")
    made = run_settings(study.runs)
    columns = dict(made.runs)
    assert columns["grpo-toy"] == columns["ngrpo-toy"] == "1, 2, 3"
    assert columns["stht-toy"] == "1"
    assert len(columns) == len({spec.model_copy(update={"seed": 1, "id": "x"}).digest for spec in study.runs.values()})
    assert len(columns) < len(study.runs)
    shared, differing = {key for key, *_ in made.shared}, {key: values for key, values, _ in made.differing}
    assert not shared & set(differing)
    assert "training.learning_rate" in shared
    assert all(len(values) == len(columns) and len(set(values)) > 1 for values in differing.values())
    by_run = dict(zip(columns, differing["exploration.kind"], strict=True))
    assert (by_run["grpo-toy"], by_run["ngrpo-toy"]) == ("none", "neighbors")


def test_one_run_differs_from_nothing() -> None:
    study = load_study(CONFIG, "toy")
    alone = run_settings({"grpo-toy": study.runs["grpo-toy"]})
    assert alone.runs == [("grpo-toy", "1")]
    assert alone.differing == []
    assert run_settings({}).runs == []
