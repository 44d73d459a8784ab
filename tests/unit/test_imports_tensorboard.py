"""Curves of a TensorBoard folder, as its own library writes and reads them."""

import json
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from ngrpo.errors import UserError
from ngrpo.report.imports import import_curves
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results

pytestmark = pytest.mark.train
ROOT = Path(__file__).resolve().parents[2]


def test_a_folders_scalars_are_taken_and_what_was_logged_last_counts(tmp_path: Path) -> None:
    study, results = load_study(ROOT / "config", "toy"), Results(tmp_path / "toy")
    with SummaryWriter(str(tmp_path / "run" / "a")) as writer:
        for step, value in ((1, 0.25), (2, 0.5), (2, 0.75)):
            writer.add_scalar("critic/rewards/mean", value, step)
            writer.add_scalar("other", value, step)
    with pytest.raises(UserError, match="hold no scalars"):
        import_curves(study, results, "x", _empty(tmp_path / "empty"))
    import_curves(study, results, "board", tmp_path / "run")
    files = results.imported("board")
    assert files.curves.read_text() == "step,reward\n1,0.25\n2,0.75\n"
    card = json.loads(files.card.read_text())
    assert (card["kind"], card["source"], card["columns"]) == ("tensorboard", "run", {"reward": "critic/rewards/mean"})


def _empty(folder: Path) -> Path:
    with SummaryWriter(str(folder)):
        return folder
