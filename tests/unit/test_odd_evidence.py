"""What odd evidence gets from a claim's verdict, on the files that a study leaves: docs/statistics.md has the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import make_study

from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.errors import UserError
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.layout import Results

MODEL = "r1-qwen-1.5b"
BENCHMARKS = ("aime25", "amc23")
PROBLEMS = 30


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """Paper scale, three seeds; each test writes the grades that it needs."""
    folder = tmp_path_factory.mktemp("odd")
    return make_study(folder, "paper", problems=PROBLEMS, seeds=3), Results(folder / "paper")


def evaluations(study, method: str, benchmarks=BENCHMARKS) -> list[str]:
    """A method's evaluations with every training seed."""
    names = [study.evaluation_id(method, "standard", MODEL, benchmark) for benchmark in benchmarks]
    return [each for name in names for each in (name, *study.extra_seeds[name])]


def set_right(results: Results, name: str, right: np.ndarray) -> None:
    """Grades of an evaluation: right (N, 32)."""
    path = results.evaluation(name).grades
    frame = pd.read_parquet(path).sort_values(["problem_id", "sample"])
    frame.assign(grade=np.where(right.ravel(), "correct", "wrong")).to_parquet(path, index=False)


def judged(study, results: Results, metric: str, **changes) -> ClaimResult:
    test = {"kind": "higher", "model": MODEL, "system": {"method": "ngrpo"}, "than": [{"method": "grpo"}]}
    test |= {"benchmarks": list(BENCHMARKS), "paper": [1.0], "metric": metric, **changes}
    claim = {"where": "x", "family": "x", "says": "y", "test": test}
    (study.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": {"it": claim}}))
    (result,) = judge_claims(study, results)
    return result


def first(count: int) -> np.ndarray:
    """The first so many of each problem's samples are right."""
    return np.broadcast_to(np.arange(32) < count, (PROBLEMS, 32))


# --- two estimators of Pass@k


def test_more_by_the_bootstrap_alone_isnt_supported_and_says_so(study) -> None:
    """All problems are solved by both systems, by one with more samples of each: "solves more" isn't so."""
    made, results = study
    rng = np.random.default_rng(1)
    for method, least in (("ngrpo", 6), ("grpo", 1)):
        for name in evaluations(made, method):
            counts = rng.integers(least, least + 4, PROBLEMS)
            set_right(results, name, np.arange(32) < counts[:, None])
    result = judged(made, results, "pass@32")
    (part,) = result.parts
    assert part.low > 0
    assert part.other_estimator == 0
    assert result.verdict == "underpowered"
    assert result.questions[0].adjusted <= 0.05
    assert "Above 0 by the claim’s own estimator of Pass@k alone" in result.reason
    assert "The estimators disagree" in result.reason
    assert "above 0 by the bootstrap estimator, not shown by the unbiased one" in result.reason
    assert "on these benchmarks and on problems like these" in result.reason
    assert judged(made, results, "pass@32", estimator="unbiased").verdict != "supported"


def test_more_by_both_is_supported(study) -> None:
    made, results = study
    rng = np.random.default_rng(2)
    for method, share in (("ngrpo", 0.9), ("grpo", 0.5)):
        for name in evaluations(made, method):
            solved = rng.uniform(size=(PROBLEMS, 1)) < share
            set_right(results, name, solved & (rng.uniform(size=(PROBLEMS, 32)) < 0.5))
    result = judged(made, results, "pass@32")
    assert result.verdict == "supported"
    assert "disagree" not in result.reason


# --- all alike


@pytest.mark.parametrize("right", [0, 32])
@pytest.mark.parametrize("metric", ["mean", "pass@32"])
def test_all_right_or_all_wrong_is_a_difference_of_0_that_is_no_certainty(study, right: int, metric: str) -> None:
    made, results = study
    for name in (*evaluations(made, "ngrpo"), *evaluations(made, "grpo")):
        set_right(results, name, first(right))
    result = judged(made, results, metric)
    (part,) = result.parts
    assert part.estimate == 0
    assert part.low < 0 < part.high
    assert part.beyond.low <= part.low < part.high <= part.beyond.high
    assert [answer.verdict in ("underpowered", "not supported") for answer in result.questions] == [True, True]


# --- seeds


def test_one_seed_is_underpowered_for_both_questions(study, tmp_path: Path) -> None:
    single, results = make_study(tmp_path, "paper", problems=6), Results(tmp_path / "paper")
    result = judged(single, results, "mean", than=[{}], paper=[60.0])
    assert [answer.verdict for answer in result.questions] == ["underpowered"] * len(QUESTIONS)
    assert result.parts[0].low < result.parts[0].high  # of this run's samples


# --- problems and samples


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("problem", "problems"),
        ("renamed", "problem"),
        ("samples", "another number of samples than 32"),
    ],
)
def test_other_problems_or_samples_are_not_compared_and_named(tmp_path: Path, damage: str, said: str) -> None:
    made, results = make_study(tmp_path, "paper", problems=4, seeds=2), Results(tmp_path / "paper")
    for name in evaluations(made, "ngrpo", ("aime25",)):
        path = results.evaluation(name).grades
        frame = pd.read_parquet(path)
        one = frame["problem_id"].iloc[0]
        changed = {
            "problem": frame[frame["problem_id"] != one],
            "renamed": frame.assign(problem_id=frame["problem_id"].replace(one, "another")),
            "samples": frame[frame["sample"] < 16],
        }[damage]
        changed.to_parquet(path, index=False)
    result = judged(made, results, "mean")
    assert result.verdict == "not run"
    assert said in " ".join(result.missing)
    assert "aime25" in " ".join(result.missing)


def test_a_margin_of_0_is_refused(study) -> None:
    made, results = study
    drawn = {"kind": "similar", "to": [{"method": "grpo"}], "within": 0.0, "whose": "ours", "why": "a test"}
    test = {"model": MODEL, "system": {"method": "ngrpo"}, "benchmarks": ["aime25"], "metric": "mean", **drawn}
    claim = {"where": "x", "family": "x", "says": "y", "test": test}
    (made.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": {"it": claim}}))
    with pytest.raises(UserError, match="greater than 0"):
        judge_claims(made, results)


def test_two_problems_are_compared_and_one_is_not(tmp_path: Path) -> None:
    made, results = make_study(tmp_path / "two", "paper", problems=2, seeds=3), Results(tmp_path / "two" / "paper")
    result = judged(made, results, "mean", benchmarks=["aime25"])
    assert result.verdict in ("underpowered", "not supported")
    part = result.parts[0]
    assert np.isfinite([part.low, part.high, part.beyond.low, part.beyond.high]).all()
    assert part.beyond.high - part.beyond.low >= part.high - part.low > 0
    made, results = make_study(tmp_path / "one", "paper", problems=1, seeds=3), Results(tmp_path / "one" / "paper")
    alone = judged(made, results, "mean", benchmarks=["aime25"])
    assert alone.verdict == "not run"
    assert "fewer than two problems" in " ".join(alone.missing)
