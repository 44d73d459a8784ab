"""Every notebook ends in the claims that its figures bear on, with the numbers and verdicts of the page."""

import json
import shutil
from pathlib import Path

import pytest
from great_tables import GT
from synthetic_study import make_study

from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.formatting import effect
from ngrpo.report.answer import answer, least_shown
from ngrpo.report.conclusions import bears_on, conclusions
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.predicates import read_claims

ROOT = Path(__file__).parents[2]
ENDS_IN = {
    "results": 'conclusions(study, judge_claims(study, made), "results")',
    "ablations": 'conclusions(study, judge_claims(study, made), "ablations")',
    "diagnostics": 'conclusions(study, judge_claims(study, made), "diagnostics")',
    "reproducibility": "conclusions(study, judge_claims(study, made))",
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[ClaimResult]]:
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, "paper", problems=6, tables=None, seeds=2)
    return study, judge_claims(study, Results(folder / "paper"))


def rows(made: GT) -> list[dict]:
    return made._tbl_data.to_dict("records")


def test_every_notebook_ends_in_its_conclusions() -> None:
    stored = {path.stem: json.loads(path.read_text())["cells"] for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name: "".join(cells[-1]["source"]) for name, cells in stored.items()} == ENDS_IN
    assert {"".join(cells[-2]["source"]).splitlines()[0] for cells in stored.values()} == {"## What follows"}


def test_a_claim_stands_where_its_figures_are() -> None:
    study = load_study(ROOT / "config", "paper")
    where = {name: bears_on(claim.test, study) for name, claim in read_claims(ROOT / "config").items()}
    assert {name for name, notebook in where.items() if notebook == "diagnostics"} == {"noise-flips", "mixture-flips"}
    mixing = ("rate-matters", "neighbors-over-gumbel", "cosine-best", "inference-mixing-hurts-1.5b", "rho-average-7b")
    assert {where[name] for name in mixing} == {"ablations"}
    others = ("ngrpo-over-grpo-1.5b", "ngrpo-best-7b", "gumbel-over-base", "ngspo-over-gspo", "base-mixing-aime24")
    assert {where[name] for name in (*others, "cosine-mean", "slowdown-1.5b")} == {"results"}


def test_each_claim_is_in_one_notebook_as_on_the_page(judged) -> None:
    study, claims = judged
    parts = [rows(conclusions(study, claims, name)) for name in ("results", "ablations", "diagnostics")]
    assert all(parts)
    assert sorted(row["claim"] for part in parts for row in part) == sorted(claim.says for claim in claims)
    whole = rows(conclusions(study, claims))
    assert [row["verdict"] for row in whole] == [claim.verdict for claim in claims]
    for row, claim in zip(whole, claims, strict=True):
        shown = least_shown(claim)
        assert effect(shown.estimate, shown.unit) in row["seen"]
        assert row["95 % interval"] == f"{effect(shown.low, shown.unit)} to {effect(shown.high, shown.unit)}"


def test_it_says_what_the_first_screen_says(judged) -> None:
    study, claims = judged
    assert conclusions(study, claims)._heading.subtitle == answer(study, claims).sentence


def test_a_study_without_such_claims_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config" / "claims.yaml").unlink()
    study = load_study(tmp_path / "config", "toy")
    said = conclusions(study, judge_claims(study, Results(tmp_path / "toy")), "ablations")
    assert said == (
        "This configuration has no claim that this scale judges."
        " No claim that this scale shows is about what stands here."
    )
