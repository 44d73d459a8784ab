"""Other people's training curves: taken once, kept with where they came from, drawn beside the study's own."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.crate.packed import gathered, may_hold
from ngrpo.errors import UserError
from ngrpo.report.imports import import_curves, read_imports
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

VERL = """step,critic/rewards/mean,response_length/mean,actor/entropy,timing_s/step
2,0.6,19.5,0.25,3
1,0.5,18,0.3,3
3,,20,nan,3
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Results]:
    folder = tmp_path_factory.mktemp("toy")
    return make_study(folder, problems=2), Results(folder / "toy")


def taken(toy: tuple[Study, Results], tmp_path: Path, text: str, name: str = "theirs", **options: object) -> str:
    source = tmp_path / "log.csv"
    source.write_text(text)
    return import_curves(*toy, name, source, **options)


def test_verls_own_names_are_known_and_the_source_is_recorded(toy, tmp_path: Path) -> None:
    said = taken(toy, tmp_path, VERL, "verl")
    assert "3 steps; reward from critic/rewards/mean, response_length from response_length/mean" in said
    files = toy[1].imported("verl")
    card = json.loads(files.card.read_text())
    assert (card["source"], card["kind"], card["model"], card["steps"]) == ("log.csv", "csv", "toy", 3)
    assert card["sha256"] == hashlib.sha256(VERL.encode()).hexdigest()
    curves = pd.read_csv(files.curves)
    assert curves.columns.tolist() == ["step", "reward", "response_length", "entropy"]
    assert curves["step"].tolist() == [1, 2, 3]
    assert curves["reward"].tolist()[:2] == [0.5, 0.6]
    assert curves[["reward", "entropy"]].isna().sum().tolist() == [1, 1]


def test_the_page_draws_them_dashed_beside_ours_and_the_crate_holds_them(toy, tmp_path: Path) -> None:
    taken(toy, tmp_path, VERL, "drawn")
    html = page_html(*toy)
    [key] = [item for item in html.split("<li>") if item.partition("</li>")[0].endswith("imported: drawn")]
    [look] = re.findall(r'href="#(look-[^"]+)"', key)
    assert "stroke-dasharray" in html[html.index(f'id="{look}"') :].partition("</symbol>")[0].partition("</g>")[0]
    assert "imported: drawn ends at 0.6" in html  # what the figure shows, in words
    assert '<a href="../imported/drawn/curves.csv">imported/drawn/curves.csv</a>, from log.csv (SHA-256' in html
    inside = {path.as_posix() for path in gathered(toy[0], tmp_path, toy[1])}
    names = {f"results/toy/imported/drawn/{name}" for name in ("curves.csv", "card.json")}
    assert names <= inside
    assert all(may_hold(toy[0], name) for name in names)
    assert not may_hold(toy[0], "results/toy/imported/drawn/other.csv")


def test_a_curve_with_another_name_is_named(toy, tmp_path: Path) -> None:
    text = "_step,my/score,critic/rewards/mean\n5,1,2\n"
    taken(toy, tmp_path, text, "named", columns=("reward=my/score",))
    [own] = [each for each in read_imports(*toy) if each.name == "named"]
    assert own.log.to_dict("records") == [{"step": 5, "reward": 1.0}]


def test_nothing_is_overwritten_unless_it_is_asked_for(toy, tmp_path: Path) -> None:
    taken(toy, tmp_path, VERL, "kept")
    files = toy[1].imported("kept")
    before = files.curves.read_bytes(), files.card.read_bytes()
    with pytest.raises(UserError, match="'kept' is imported already"):
        taken(toy, tmp_path, "step,reward\n1,9\n", "kept")
    with pytest.raises(UserError, match="line 2"):
        taken(toy, tmp_path, "step,reward\n1,x\n", "kept", replace=True)
    assert (files.curves.read_bytes(), files.card.read_bytes()) == before
    taken(toy, tmp_path, "step,reward\n1,9\n", "kept", replace=True)
    assert files.curves.read_text() == "step,reward\n1,9.0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column of steps; it has nothing"),
        ("step,reward\n", "no line with a step"),
        ("epoch,reward\n1,2\n", "no column of steps; it has epoch, reward"),
        ("step,reward\n1,high\n", "log.csv, line 2, column 'reward'"),
        ("step,reward\n1,1e999\n", "larger than any metric"),
        ("step,reward\none,1\n", "log.csv, line 2, column 'step'"),
        ("step,reward\n1.5,1\n", "no step's number: '1.5'"),
        ("step,reward\n-1,1\n", "no step's number"),
        ("step,reward\n1,1\n1,2\n", "step 1 is there twice"),
        ("step,reward\n1,1,2\n", "3 values, where the first line has 2 names"),
        ("step,reward,reward\n1,1,2\n", "the column 'reward' is there twice"),
        ('step,reward\n1,"1\n', "not readable as CSV"),
        ("step,loss\n1,2\n", "no curve that is known here; it has loss"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(toy, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        taken(toy, tmp_path, text, "bad")
    assert said in str(raised.value)
    assert "log.csv" in str(raised.value)
    assert not toy[1].imported("bad").folder.exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("../x", {}, "can't be an import's name"),
        ("x", {"columns": ("reward",)}, "is no pair of names"),
        ("x", {"columns": ("rewrad=a",)}, "did you mean 'reward'"),
        ("x", {"columns": ("reward=actor/entrpy",)}, "did you mean 'actor/entropy'"),
        ("x", {"model": "tyo"}, "did you mean 'toy'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(toy, tmp_path: Path, name: str, options: dict, said: str) -> None:
    with pytest.raises(UserError) as raised:
        taken(toy, tmp_path, VERL, name, **options)
    assert said in str(raised.value)


def test_without_tensorboard_the_other_environment_is_named(toy, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="no event files"):
        import_curves(*toy, "x", tmp_path / "run")
    (tmp_path / "run" / "events.out.tfevents.1").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"(?s)tensorboard, which this environment lacks.*\.venv-train/bin/ngrpo import"
    ):
        import_curves(*toy, "x", tmp_path / "run")
