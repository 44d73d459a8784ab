"""What verl is told is what the compliance checker requires, for every run of every scale; and it is written down."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ngrpo.audit.compliance import verl_settings
from ngrpo.files import read_json
from ngrpo.study.expand import load_study
from ngrpo.study.layout import RunFiles
from ngrpo.study.specs import RunSpec
from ngrpo.training.verl.monitor import MetricsFile
from ngrpo.training.verl.recipe import Ranks, RunInputs, Saving, compose

pytestmark = pytest.mark.train

CONFIG = Path(__file__).resolve().parents[2] / "config"


def settings_of(spec: RunSpec, run_dir: Path) -> dict:
    """verl's resolved settings for a run, as its trainer hands them to the tracker."""
    config = compose(
        spec,
        RunInputs(*(run_dir / name for name in ("model", "data", "validation", "neighbors"))),
        RunFiles(run_dir),
        ranks=Ranks(),
        saving=Saving(10, 30.0, None),
        lease={},
        steps=spec.training.steps or 9,
        vocabulary={"a": 0},
    )
    return OmegaConf.to_container(config, resolve=True)


def differing(spec: RunSpec, settings: dict) -> dict:
    config = OmegaConf.create(settings)
    required = verl_settings(spec)
    return {key: value for key, value in required.items() if OmegaConf.select(config, key) != value}


@pytest.mark.parametrize("scale", ["toy", "smoke", "single", "paper"])
def test_every_run_tells_verl_what_the_checker_requires(scale: str, tmp_path: Path) -> None:
    study = load_study(CONFIG, scale)
    for name, spec in study.runs.items():
        assert differing(spec, settings_of(spec, tmp_path / name)) == {}


def test_a_setting_of_another_run_is_found(tmp_path: Path) -> None:
    study = load_study(CONFIG, "toy")
    other = settings_of(study.runs["grpo-toy"], tmp_path)
    assert "actor_rollout_ref.rollout.ngrpo.exploration.kind" in differing(study.runs["ngrpo-toy"], other)


def test_the_tracker_writes_verls_settings_into_the_run_folder(tmp_path: Path) -> None:
    spec = load_study(CONFIG, "toy").runs["ngrpo-toy"]
    settings = settings_of(spec, tmp_path)
    MetricsFile(RunFiles(tmp_path), settings).log({"actor/lr": 1e-4}, step=1)
    assert read_json(tmp_path / "verl.json") == settings
    assert (tmp_path / "metrics.jsonl").exists()
