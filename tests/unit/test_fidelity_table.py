"""The fidelity table says what this study's runs hold, and what came of runs that differ in switches alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import ROOT, make_study, write_grades
from unwritten import page_html

from ngrpo.audit.fidelity import fidelity_rows, mixed_fidelity, switched_pairs
from ngrpo.claims.verdicts import judge_claims
from ngrpo.report.section_switches import switch_effects
from ngrpo.report.tables import analyze
from ngrpo.statistics.metrics import compare
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values


@pytest.fixture
def both(tmp_path: Path):
    """A toy study with N-GRPO as in the paper, as released, with one switch set, and with another k."""
    make_study(tmp_path, problems=12)
    file = tmp_path / "config" / "study.yaml"
    value = yaml.safe_load(file.read_text())
    mixing = {"kind": "neighbors", "rho": 0.1, "k": 3, "metric": "cosine"}
    value["methods"] |= {
        "ngrpo-release": {"title": "released", "exploration": {"kind": "neighbors"}, "fidelity": "release"},
        "ngrpo-sampled": {"title": "sampled", "exploration": {**mixing, "text": "sampled"}},
        "ngrpo-k5": {"title": "k5", "exploration": {**mixing, "k": 5}},
    }
    value["tables"]["main"]["rows"] += [
        {"label": name, "method": name} for name in ("ngrpo-release", "ngrpo-sampled", "ngrpo-k5")
    ]
    file.write_text(yaml.safe_dump(value, allow_unicode=True))
    return load_study(tmp_path / "config", "toy"), Results(tmp_path / "toy")


def test_every_switch_says_what_the_runs_hold(both) -> None:
    study, _ = both
    rows = {row["switch"]: row for row in fidelity_rows(study, read_paper_values(study.folder))}
    assert dict(rows["text at a mixed step"]["here"]) == {
        "paper": ["ngrpo-toy", "ngrpo-k5-toy"],
        "release": ["ngrpo-release-toy", "ngrpo-sampled-toy"],
    }
    assert dict(rows["k"]["here"])["5"] == ["ngrpo-k5-toy"]
    assert rows["k"]["paper"] == "3"
    assert rows["learning rate"]["paper"] == "1e-6"
    assert "Gumbel weights" not in rows
    assert rows["Pass@k"]["here"] == [("both, side by side", [])]


def test_runs_that_differ_in_switches_alone_are_paired(both) -> None:
    study, _ = both
    pairs = {(one, other): names for one, other, names in switched_pairs(study)}
    assert set(pairs) == {("ngrpo-toy", "ngrpo-release-toy"), ("ngrpo-toy", "ngrpo-sampled-toy"),
                          ("ngrpo-sampled-toy", "ngrpo-release-toy")}  # fmt: skip
    assert pairs["ngrpo-toy", "ngrpo-sampled-toy"] == ["text at a mixed step"]
    released = pairs["ngrpo-toy", "ngrpo-release-toy"]
    assert {"mixing weights", "neighbor space", "loss aggregation"} <= set(released)
    assert "rollout temperature" not in released  # the toy samples at 1.0 anyway
    assert "text at a mixed step" not in pairs["ngrpo-sampled-toy", "ngrpo-release-toy"]


def test_what_the_scripts_set_may_differ_with_the_preset_only(both) -> None:
    study, _ = both
    size = study.folder / "scales" / "toy.yaml"
    value = yaml.safe_load(size.read_text())
    value["release"] = {"toy": {"exploration": {"k": 2}, "training": {"learning_rate": 5e-5}}}
    size.write_text(yaml.safe_dump(value))
    pairs = {(one, other): names for one, other, names in switched_pairs(load_study(study.folder, "toy"))}
    assert {"k", "learning rate"} <= set(pairs["ngrpo-toy", "ngrpo-release-toy"])
    assert ("ngrpo-toy", "ngrpo-k5-toy") not in pairs
    rows = {row["switch"]: row for row in fidelity_rows(load_study(study.folder, "toy"), None)}
    assert (rows["k"]["paper"], rows["k"]["release"]) == ("–", "2 (toy)")


def test_rows_that_mix_fidelity_are_told_on_the_page(both) -> None:
    study, results = both
    runs = {name: study.runs[f"{name}-toy"] for name in ("ngrpo", "ngrpo-sampled", "grpo")}
    assert mixed_fidelity(runs) == ["text at a mixed step: paper in ngrpo; release in ngrpo-sampled"]
    assert mixed_fidelity({name: runs[name] for name in ("ngrpo", "grpo")}) == []
    analyze("main", study, results, results.table("main"))
    text = page_html(study, results)
    assert "Rows of this table mix fidelity; " in text
    assert "text at a mixed step: paper in N-GRPO, ngrpo-k5; release in ngrpo-release, ngrpo-sampled" in text
    (study.folder / "claims.yaml").write_text(
        "claims: {x: {where: Table 1, family: table1, says: y, test: {kind: higher, model: toy, metric: mean,"
        " system: {method: ngrpo}, than: [{method: ngrpo-sampled}], benchmarks: [toy-held-out], paper: [1.0]}}}"
    )
    write_grades(study, results, "ngrpo-sampled-toy/standard/toy-held-out", 0.4, 12, np.random.default_rng(1))
    (claim,) = judge_claims(study, results)
    assert claim.parts[0].note == "mixed fidelity: text at a mixed step: paper in N-GRPO; release in sampled"


def effect(study: Study, results: Results, other: str) -> dict:
    (only,) = [e for e in switch_effects(study, results) if (e["paper"], e["other"]) == ("ngrpo-toy", other)]
    return only


def test_what_a_switch_changed_is_the_paired_comparison_and_says_what_is_missing(both) -> None:
    study, results = both
    name = "ngrpo-sampled-toy/standard/toy-held-out"
    lost = effect(study, results, "ngrpo-sampled-toy")
    assert lost["rows"] == []
    assert f"snakemake --cores 2 {results.evaluation(name).grades}" in lost["missing"][0]
    other = write_grades(study, results, name, 0.4, 12, np.random.default_rng(1))
    first = pd.read_parquet(results.evaluation("ngrpo-toy/standard/toy-held-out").grades)
    changed = effect(study, results, "ngrpo-sampled-toy")
    assert changed["missing"] == []
    expected = compare(first, other)
    assert [row["value"] for row in changed["rows"]] == pytest.approx(list(expected["difference"]))
    assert {row["benchmark"] for row in changed["rows"]} == {"toy-held-out"}


def test_a_study_without_such_runs_has_none() -> None:
    assert switched_pairs(load_study(ROOT / "config", "smoke")) == []


def test_the_two_readings_of_the_papers_row_without_a_rate_are_a_pair() -> None:
    pairs = switched_pairs(load_study(ROOT / "config", "toy"))
    assert pairs == [("ngrpo-always-toy", "ngrpo-always-sampled-toy", ["text at a mixed step"])]
