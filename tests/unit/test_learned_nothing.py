"""A run that learned nothing is marked wherever a reader meets it, and announced where its equations say so."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from synthetic_study import ROOT, make_study
from unwritten import page_html

from ngrpo.audit.compliance import compliance
from ngrpo.audit.status import run_state
from ngrpo.claims.evidence import Reader
from ngrpo.claims.verdicts import judge_claims
from ngrpo.files import read_json, write_json
from ngrpo.planning.jobs import Job
from ngrpo.planning.text import _cautions
from ngrpo.report.alike import alike
from ngrpo.report.tables import analyze
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results

RUN = "ngrpo-toy"
CLAIM = {
    "where": "Table 1",
    "family": "table1",
    "says": "One is above the other.",
    "test": {"kind": "higher", "model": "toy", "system": {"method": "ngrpo"}, "than": [{"method": "grpo"}],
             "benchmarks": ["toy-held-out"], "metric": "mean", "paper": [1.0]},
}  # fmt: skip


def test_its_answers_are_not_said_to_be_the_base_models_once_more(tmp_path: Path) -> None:
    """The page's top says that it learned nothing; the control: of a run that learned they are a question."""
    study, results = make_study(tmp_path, problems=40), Results(tmp_path / "toy")
    base, own = "toy/standard/toy-held-out", f"{RUN}/standard/toy-held-out"
    frame = pd.read_parquet(results.evaluation(base).grades).assign(spec=study.evaluations[own].digest)
    frame.to_parquet(results.evaluation(own).grades)
    assert len(alike(Reader(study, results))) == 1
    without_gradient(results)
    assert alike(Reader(study, results)) == []


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Study, Results]:
    study, results = make_study(tmp_path, problems=4), Results(tmp_path / "toy")
    (study.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": {"x": CLAIM}}))
    return study, results


def without_gradient(results: Results, steps: int = 20) -> None:
    """The run as it would have ended: no gradient in its steps, the base model's weights."""
    files = results.run(RUN)
    rows = [json.loads(line) for line in files.metrics.read_text().splitlines()][:steps]
    for row in rows:
        row |= {"policy/gradient_norm": 0.0, "reward/frac_reward_zero_std": 1.0, "response/frac_identical": 1.0}
    files.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = {**read_json(files.model_card), "step": steps, "steps": steps, "score": rows[-1]["validation/score"]}
    write_json(
        files.model_card, {**card, "ended": f"no policy gradient in {steps} steps in a row", "equals_base": True}
    )


def marks(study: Study, results: Results) -> dict[str, bool]:
    """Where a reader of the study meets the mark."""
    analyze("main", study, results, results.table("main"))
    text = page_html(study, results)
    checks = compliance(study, results, [run_state(study, results, run) for run in study.runs], None)
    (claim,) = judge_claims(study, results)
    return {
        "at the top": f"Run {RUN}: what it learned: nothing" in text,
        "in the runs": "learned nothing: none of its 20 steps had a policy gradient" in text,
        "as ended early": "finished early (no policy gradient in 20 steps in a row)" in text,
        "in the table's row": "N-GRPO: its run learned nothing (none of its 20 steps" in text,
        "in keys of figures": text.count("N-GRPO (learned nothing)") >= 3,
        "in compliance": {c.run for c in checks if c.state == "off"} == {RUN},
        "beside claims": "N-GRPO learned nothing" in claim.parts[0].note,
    }


def test_it_is_marked_in_runs_tables_figures_compliance_and_claims(toy) -> None:
    assert not any(marks(*toy).values())  # the control
    without_gradient(toy[1])
    assert all(marks(*toy).values()), marks(*toy)


def test_either_sign_alone_is_said(toy) -> None:
    study, results = toy
    files = results.run(RUN)
    card = read_json(files.model_card)
    write_json(files.model_card, {**card, "equals_base": True})
    assert run_state(study, results, RUN).learned_nothing == "its weights are the base model's, to the last bit"
    write_json(files.model_card, {**card, "equals_base": False})
    assert run_state(study, results, RUN).learned_nothing == ""


def test_what_the_equations_make_deterministic_is_known_before_it_runs() -> None:
    """By the mixer's own word, at every scale; of both readings of the paper's row one alone."""
    for scale in ("toy", "paper"):
        runs = load_study(ROOT / "config", scale).runs.values()
        fixed = {run.id for run in runs if run.exploration.deterministic_text}
        assert {name.rpartition("-r1-")[0] or name.rpartition("-toy")[0] for name in fixed} == {"ngrpo-always"}
        assert any(run.id.startswith("ngrpo-always-sampled-") for run in runs)
    lines = _cautions([Job("train", "a", why="not made yet", caution="can't vary"), Job("train", "b", why="x")])
    assert lines == ["", "can't learn, by its equations", "  train a: can't vary"]
