"""A claim's two questions, its family, and looks at data that grow or change."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_study import make_study, write_grades

from ngrpo.claims.looks import record_looks
from ngrpo.claims.verdicts import ClaimResult, look_at_claims
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

MODEL = "r1-qwen-1.5b"


def higher(a: str | None, b: str | None, family: str = "one", **changes) -> dict:
    test = {"kind": "higher", "model": MODEL, "system": {"method": a}, "than": [{"method": b}], "metric": "mean"}
    test |= {"benchmarks": ["aime25", "amc23"], "paper": [10.0], **changes}
    return {"where": "x", "family": family, "says": "y", "test": test}


def looked(study: Study, results: Results, **claims: dict) -> dict[str, ClaimResult]:
    """One report's verdicts; what was seen is recorded."""
    (study.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))
    judged, looks = look_at_claims(study, results)
    record_looks(results, looks)
    return {claim.id: claim for claim in judged}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Study, Results]:
    """Paper scale, three seeds, 12 problems a benchmark; N-GRPO and GRPO far above Base and alike."""
    return make_study(tmp_path, "paper", problems=12, seeds=3), Results(tmp_path / "paper")


def test_both_questions_are_answered_and_the_claims_own_is_its_verdict(made) -> None:
    these = higher("ngrpo", None)
    claims = looked(*made, these=these, like={**these, "question": "problems like these"})
    for name, question in (("these", QUESTIONS[0]), ("like", QUESTIONS[1])):
        claim = claims[name]
        assert [answer.question for answer in claim.questions] == list(QUESTIONS)
        assert claim.verdict == next(a.verdict for a in claim.questions if a.question == question)
        (part,) = claim.parts
        assert part.beyond.low <= part.low <= part.estimate <= part.high <= part.beyond.high
        assert part.p == pytest.approx(claim.questions[0].p)
        assert part.beyond.p == pytest.approx(claim.questions[1].p)


def test_a_family_pays_for_its_size_and_another_doesnt(made) -> None:
    alone = looked(*made, a=higher("ngrpo", None))["a"].questions[0]
    assert (alone.family, alone.adjusted) == (1, pytest.approx(alone.p))
    many = {f"b{i}": higher("ngrpo", "grpo", metric="mean", paper=[1.0 + i]) for i in range(2)}
    claims = looked(*made, a=higher("ngrpo", None), **many, c=higher("ngrpo", None, family="other"))
    assert claims["a"].questions[0].family == 3
    assert claims["a"].questions[0].adjusted == pytest.approx(min(1, 3 * alone.p))
    assert claims["c"].questions[0].adjusted == pytest.approx(alone.p)


def test_a_report_made_again_is_no_new_look_and_more_seeds_are(made, tmp_path: Path) -> None:
    study, results = made
    claim = higher("ngrpo", None)
    for _ in range(2):
        assert looked(study, results, a=claim)["a"].questions[0].looks == 1
    rng = np.random.default_rng(8)
    for name in (f"ngrpo-{MODEL}-seed3/standard/aime25", f"ngrpo-{MODEL}-seed3/standard/amc23"):
        write_grades(study, results, name, 0.5, 12, rng)
    changed = looked(study, results, a=claim)["a"].questions[0]
    assert changed.looks == 2
    assert changed.adjusted > changed.p  # the first look's share is spent, and its data are gone


def test_one_seed_says_what_it_can_and_isnt_a_look(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "paper", problems=6), Results(tmp_path / "paper")
    claim = looked(study, results, a=higher("ngrpo", None, paper=[60.0]))["a"]
    assert {answer.verdict for answer in claim.questions} == {"underpowered"}
    assert "what another run would give isn’t known" in claim.reason
    assert claim.parts[0].low < claim.parts[0].estimate < claim.parts[0].high
    assert not results.looks.exists()


def test_where_the_two_estimators_disagree_the_verdict_says_so(tmp_path: Path) -> None:
    """All problems solved by both: unbiased Pass@32 can't differ, the bootstrap's can."""
    study = make_study(tmp_path, "paper", problems=12, seeds=3)
    results, rng = Results(tmp_path / "paper"), np.random.default_rng(1)
    for name in (*study.evaluations, *(e for more in study.extra_seeds.values() for e in more)):
        frame = write_grades(study, results, name, 0.5, 12, rng)
        right = 1 if name.startswith("grpo") else 20
        frame["grade"] = np.where(
            frame["sample"] < right + frame["problem_id"].str[-1].astype(int) % 2, "correct", "wrong"
        )
        frame.to_parquet(results.evaluation(name).grades, index=False)
    claim = looked(study, results, a=higher("ngrpo", "grpo", metric="pass@32"))["a"]
    assert "above 0 by the bootstrap estimator, not shown by the unbiased one" in claim.reason
    assert claim.parts[0].other_estimator == 0
