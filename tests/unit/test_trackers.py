"""Trackers hold what metrics.jsonl holds: while a run trains, after it was killed, and after it took steps again."""

import json
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.study.layout import RunFiles
from ngrpo.study.settings import Settings, read_settings
from ngrpo.training.verl import trackers
from ngrpo.training.verl.trackers import check_trackers, tracked

pytestmark = pytest.mark.train


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    pytest.importorskip("tensorboard")
    return RunFiles(tmp_path / "grpo-toy")


def log(run: RunFiles, rows: dict[int, float]) -> None:
    run.folder.mkdir(exist_ok=True)
    lines = (json.dumps({"step": step, "reward/mean": value, "none": None}) for step, value in rows.items())
    run.metrics.write_text("".join(f"{line}\n" for line in lines))


def shown(run: RunFiles) -> dict[int, float]:
    """What TensorBoard shows of the reward, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = EventAccumulator(str(run.tensorboard)).Reload().Scalars("reward/mean")
    return {each.step: pytest.approx(each.value) for each in scalars}


def test_tensorboard_gets_steps_as_they_are_logged_and_the_last_one_too(run: RunFiles) -> None:
    rows = {1: 0.25, 2: 0.5}
    with tracked(run, "grpo-toy", ["tensorboard"]):
        log(run, rows)
    assert shown(run) == rows


def test_a_resumed_run_replaces_the_steps_that_it_takes_again_and_fills_what_a_kill_lost(run: RunFiles) -> None:
    log(run, {1: 0.1, 2: 0.2, 3: 0.9, 4: 0.9})  # 3 and 4 come after the last checkpoint
    with tracked(run, "grpo-toy", ["tensorboard"]):
        pass
    assert shown(run)[4] == 0.9
    resumed = {1: 0.1, 2: 0.2, 3: 0.3}
    log(run, resumed)
    with tracked(run, "grpo-toy", ["tensorboard"]):
        pass
    assert shown(run) == resumed


def test_nothing_is_written_where_no_tracker_is_asked_for(run: RunFiles) -> None:
    log(run, {1: 0.1})
    with tracked(run, "grpo-toy", []):
        pass
    assert not run.tensorboard.exists()


def test_a_tracker_that_fails_costs_no_training(run: RunFiles, capsys: pytest.CaptureFixture[str]) -> None:
    log(run, {1: 0.1})
    run.tensorboard.write_text("a file where the folder should be")
    with tracked(run, "grpo-toy", ["tensorboard"]):
        trained = True
    assert trained
    assert "tensorboard fails and gets no more of this run" in capsys.readouterr().out


def test_wandb_gets_them_through_verl(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    log(run, {1: 0.125})
    with tracked(run, "grpo-toy", ["wandb"]):
        pass
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 60  # W&B's own process writes it, late on a busy machine
    while b"reward/mean" not in file.read_bytes() and time.monotonic() < until:
        time.sleep(0.2)
    assert b"reward/mean" in file.read_bytes()


def test_a_tracker_that_isnt_there_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tensorboard", "wandb"])
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr(trackers, "find_spec", {"wandb": object()}.get)
    with pytest.raises(UserError, match="asks for mlflow, which the training environment lacks"):
        check_trackers(["wandb", "mlflow"])


def test_the_site_names_trackers() -> None:
    assert Settings().tracking == ()
    assert read_settings({"tracking": ["tensorboard"]}).tracking == ("tensorboard",)
    with pytest.raises(UserError, match="tracking"):
        read_settings({"tracking": ["tensorbord"]})
    with pytest.raises(UserError, match="a list is needed: 'tensorboard'") as error:
        read_settings({"tracking": "tensorboard"})
    assert "in brackets" in str(error.value)
