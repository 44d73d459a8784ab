"""The toy scale's claims on a finished toy study: verdicts of every kind occur, each for both questions.

toy_counts.json: correct answers of 32 to each of the 128 held-out sums, by policy, of a toy study with three training
seeds (`snakemake --config tables=demo`), the one of docs/sample.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import ROOT, make_study

from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.report.summary import claim_counts
from ngrpo.statistics.decisions import VERDICTS
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.layout import Results

COUNTS = json.loads((ROOT / "tests" / "unit" / "toy_counts.json").read_text())
EXPECTED = {
    "toy-grpo-learns": "supported",
    "toy-ngrpo-learns": "supported",
    "toy-control": "contradicted",
    "toy-ngrpo-as-good": "supported",
    "toy-ngrpo-over-grpo": "underpowered",
    "toy-ngrpo-far-over-grpo": "not supported",
    "toy-loses-none": "supported",
    "toy-rho-matters-little": "not run",
    "toy-shuffled-learns": "not run",
    "toy-k1-learns": "not run",
}


def judged(folder: Path, seeds: int) -> dict[str, ClaimResult]:
    """The toy's own claims on the counts, with so many seeds."""
    study, results = make_study(folder, "toy", problems=len(COUNTS["toy"]), seeds=seeds), Results(folder / "toy")
    for name in (*study.evaluations, *(n for more in study.extra_seeds.values() for n in more)):
        path, right = results.evaluation(name).grades, COUNTS[name.split("/")[0]]
        grades = pd.read_parquet(path)
        place = grades["problem_id"].rank(method="dense").astype(int) - 1
        grades["grade"] = (grades["sample"] < place.map(dict(enumerate(right)))).map({True: "correct", False: "wrong"})
        grades.to_parquet(path, index=False)
    return {claim.id: claim for claim in judge_claims(study, results) if claim.scale == "toy"}


@pytest.fixture(scope="module")
def claims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClaimResult]:
    """With three seeds."""
    return judged(tmp_path_factory.mktemp("toy"), 3)


def test_a_toy_study_of_three_seeds_has_verdicts_of_every_kind(claims) -> None:
    assert {name: claim.verdict for name, claim in claims.items()} == EXPECTED
    assert [kind for kind, _ in claim_counts(list(claims.values()))] == list(VERDICTS)


def test_each_verdict_answers_both_questions_with_an_interval_and_a_p(claims) -> None:
    for claim in claims.values():
        if claim.verdict == "not run":
            assert claim.missing
            assert not claim.questions
            continue
        assert tuple(answer.question for answer in claim.questions) == QUESTIONS
        for part in claim.parts:
            assert part.low <= part.estimate <= part.high
            assert part.beyond.low <= part.low
            assert part.high <= part.beyond.high
        for answer in claim.questions:
            assert 0 < answer.p <= answer.adjusted <= 1
            assert (answer.verdict == "supported") <= (answer.adjusted <= 0.05)


def test_one_seed_of_the_same_study_decides_nothing(tmp_path: Path) -> None:
    claims = judged(tmp_path, 1)
    assert {claim.verdict for claim in claims.values()} == {"underpowered", "not run"}
