"""Tables 9 and 14 on the page: counts are those of the grades, the slowdown is the claim's, the paper stands beside."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.audit.status import run_state
from ngrpo.claims.verdicts import judge_claims
from ngrpo.report.section_paired import OUTCOMES, paired_outcomes, slowdowns
from ngrpo.statistics.sign_tests import sign_test_p
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values

NEVER = {"standard": ("0000", "0001", "0002"), "mixing": ("0000", "0003")}


def solve_all_but(results: Results, evaluation: str, never: tuple[str, ...]) -> None:
    """Make grades of which each other problem has one right sample."""
    path = results.evaluation(evaluation).grades
    grades = pd.read_parquet(path)
    right = ~grades["problem_id"].str.endswith(never) & (grades["sample"] == 5)
    grades.assign(grade=np.where(right, "correct", "wrong")).to_parquet(path, index=False)


def test_problems_are_counted_by_which_decoding_solves_them_beside_the_papers_shares(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "paper", problems=8, tables=("table9",)), Results(tmp_path / "paper")
    for decoding, never in NEVER.items():
        solve_all_but(results, f"r1-qwen-1.5b/{decoding}/aime24", never)
    paper = read_paper_values(tmp_path / "config")
    (row,) = paired_outcomes(study, results, paper)
    counts = {name: share.count for (name, _), share in zip(OUTCOMES, row["shares"], strict=True)}
    assert counts == {"both": 4, "standard_only": 1, "mixing_only": 2, "neither": 1}
    assert row["p"] == sign_test_p(2, 1)
    assert row["paper"] == [63.3, 0.0, 10.0, 26.7]
    for share in row["shares"]:
        assert share.value == share.count / 8
        assert share.low <= share.value <= share.high
    html = page_html(study, results)
    assert "paper 63.3 %" in html
    assert "50.0 %</b> (4)" in html
    results.evaluation("r1-qwen-1.5b/mixing/aime24").grades.unlink()
    assert list(paired_outcomes(study, results, paper)) == []


def test_the_slowdown_is_the_claims_and_rates_are_the_logs(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, problems=2), Results(tmp_path / "toy")
    runs, claims = [run_state(study, results, run) for run in study.runs], judge_claims(study, results)
    (row,) = slowdowns(study, runs, claims, None)
    logs = {run.id: run.log for run in runs}
    for rate, run in zip(row["rates"], ("grpo-toy", "ngrpo-toy"), strict=True):
        assert rate.run == run
        assert rate.value == pytest.approx(logs[run]["throughput"].mean())
        assert rate.low < rate.value < rate.high
    claim = next(claim for claim in claims if claim.family == "table14" and claim.parts)
    assert row["slowdown"] is claim.parts[0]
    assert row["slowdown"].estimate == pytest.approx(1 - 0.4 / 0.42, abs=0.01)
