"""Claims beyond "higher" and "similar": most of the cells, none lost, worst of all steps, token flips; and their
targets, which ask for what the verdict reads and for nothing else."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import ROOT, make_study

from ngrpo.claims.at_scale import at_scale
from ngrpo.claims.needs import claim_files, claim_names, evidence_files
from ngrpo.claims.verdicts import judge_claims
from ngrpo.errors import UserError
from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.statistics.effects import Arm, Effect
from ngrpo.statistics.partial import judge_cells
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values
from ngrpo.study.predicates import Higher, Similar, read_claims

MODEL = "r1-qwen-1.5b"
OURS = {"whose": "ours", "why": "a test"}


def claim(**test) -> dict:
    return {"where": "x", "family": "x", "says": "y", "test": {"model": MODEL, **OURS, **test}}


def judged(study, results: Results, **claims) -> dict:
    (study.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))
    return {result.id: result for result in judge_claims(study, results)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """Paper scale, three seeds, 40 problems; N-GRPO and GRPO far above Base and alike; Base mixes, too."""
    folder = tmp_path_factory.mktemp("kinds")
    tables = ("main", "ablation-inference")
    return make_study(folder, "paper", problems=40, tables=tables, seeds=3), Results(folder / "paper")


# --- most of


def most(**changes) -> dict:
    test = {"kind": "most", "system": {"method": "ngrpo"}, "than": [{}], "benchmarks": ["aime25", "amc23"]}
    return claim(**{**test, "metrics": ["mean", "pass@2"], "at_least": 3, "lead": 5.0, "paper": 4, **changes})


def test_best_of_most_needs_so_many_cells(study) -> None:
    got = judged(
        *study, up=most(), down=most(system={}, than=[{"method": "ngrpo"}]), alike=most(than=[{"method": "grpo"}])
    )
    assert [got[i].verdict for i in ("up", "down")] == ["supported", "contradicted"]
    assert got["alike"].verdict in ("underpowered", "not supported")
    assert len(got["up"].parts) == 4
    with pytest.raises(UserError, match="there are 4 cells"):
        judged(*study, wrong=most(at_least=5))


def effect(estimate: float, error: float = 1.0) -> Effect:
    return Effect(np.float64(estimate), (Arm(np.float64(error), 1e6),))


@pytest.mark.parametrize(
    ("estimates", "at_least", "verdict"),
    [
        ([9, 9, 9, 0], 3, "supported"),
        ([9, 9, 2.2, 0], 3, "not supported"),  # 2.2 is shown alone, not among two that may fail
        ([9, 9, 2.2, -9], 3, "not supported"),
        ([9, 9, -9, -9], 3, "contradicted"),
        ([9, 9, 9, -9], 4, "contradicted"),
    ],
)
def test_a_count_of_cells_is_adjusted_for_those_that_may_fail(estimates, at_least: int, verdict: str) -> None:
    cells = [[(effect(e), 5.0)] for e in estimates]
    assert judge_cells(cells, at_least, True) == verdict
    assert judge_cells(cells, at_least, False) == "underpowered"
    assert judge_cells([[(effect(0.0, 3.0), 5.0)]] * 4, at_least, True) == "underpowered"


def test_where_no_cell_holds_most_is_rarely_supported() -> None:
    rng, studies, level = np.random.default_rng(5), 200, {1: 0, 3: 0}
    for draws in rng.normal(size=(studies, 4)):
        draws[:2] += 9  # two of four hold
        for at_least in level:
            level[at_least] += judge_cells([[(effect(d), 1.0)] for d in draws], at_least, True) == "supported"
    assert level[1] == studies
    assert level[3] / studies <= 0.05  # 2.5 % on one side, from the two that don't hold


# --- loses none


def loses(**changes) -> dict:
    test = {"kind": "loses-none", "system": {"decoding": "mixing"}, "than": {}, "benchmarks": ["aime25"]}
    return claim(**{**test, "at_most": 15.0, **changes})


def test_lost_problems_are_those_that_only_the_other_solves(study) -> None:
    made, results = study
    files = {d: results.evaluation(f"{MODEL}/{d}/aime25").grades for d in ("standard", "mixing")}
    before = {d: pd.read_parquet(f) for d, f in files.items()}
    lost = sorted(before["mixing"]["problem_id"].unique())[:14]
    spoiled = before["mixing"].assign(
        grade=before["mixing"]["grade"].where(~before["mixing"]["problem_id"].isin(lost), "wrong")
    )
    solved = before["standard"].assign(grade="correct")
    got = {}
    for name, mixing in (("whole", before["mixing"].assign(grade="correct")), ("spoiled", spoiled)):
        solved.to_parquet(files["standard"], index=False)
        mixing.to_parquet(files["mixing"], index=False)
        got[name] = judged(made, results, wide=loses(), narrow=loses(at_most=1.0))
    for d, f in files.items():
        before[d].to_parquet(f, index=False)
    assert [got["whole"][i].verdict for i in ("wide", "narrow")] == ["supported", "underpowered"]
    assert got["whole"]["wide"].parts[0].estimate == 0
    assert got["whole"]["wide"].parts[0].high == pytest.approx(1 - 0.025 ** (1 / 40))  # Clopper and Pearson's, of 0
    for outcome in got.values():
        for part in outcome["wide"].parts:
            assert part.beyond is not None
            assert 0 <= part.low <= part.beyond.high <= 1  # a share on either question
            assert 0 <= part.beyond.low <= part.low
            assert part.beyond.p is None  # against no loss: a share has no sign
    assert got["spoiled"]["wide"].verdict == "contradicted"
    assert got["spoiled"]["wide"].parts[0].estimate >= 14 / 40


# --- the worst of all steps, and token flips


def test_a_least_value_is_contradicted_by_one_step(study) -> None:
    made, results = study
    least = {"kind": "logged", "method": "ngrpo", "metric": "mixing_cosine_min", "over_steps": "worst", "paper": 0.9}
    assert judged(made, results, a=claim(**least, at_least=0.92))["a"].verdict == "supported"
    file = results.run(f"ngrpo-{MODEL}-seed2").metrics
    text = file.read_text()
    file.write_text(text.replace('"mixing\\/cosine_min":0.93', '"mixing\\/cosine_min":0.5', 1))
    assert file.read_text() != text
    got = judged(
        made, results, a=claim(**least, at_least=0.92), mean=claim(**{**least, "over_steps": "mean"}, at_least=0.92)
    )
    file.write_text(text)
    assert got["a"].verdict == "contradicted"
    assert got["a"].parts[0].estimate == 0.5
    assert got["mean"].parts[0].estimate > 0.92


def test_token_flips_are_read_from_the_diagnostics(study) -> None:
    made, results = study
    flips = {"kind": "diagnosed", "method": "ngrpo"}
    few = claim(**flips, share="mixture_flips", at_most=0.9)
    got = judged(made, results, few=few, many=claim(**flips, share="noise_flips", at_least=0.1))
    assert got["few"].parts[0].estimate == 0
    assert got["many"].parts[0].estimate == pytest.approx(0.375)
    assert got["few"].verdict == "supported"
    assert got["many"].verdict == "underpowered"  # two tokens
    file = results.diagnostics(f"ngrpo-{MODEL}")
    old = file.read_text()
    file.write_text(old.replace('"mixture_flips"', '"mixture_flop"'))
    got = judged(made, results, few=few, none=claim(kind="diagnosed", method="grpo", share="noise_flips", at_least=0.1))
    file.write_text(old)
    assert "measured by another version; remade by: snakemake" in got["few"].missing[0]
    assert "method 'grpo' mixes no neighbors" in got["none"].reason


# --- scales


def test_a_claim_and_its_opposite_are_never_the_same(tmp_path: Path) -> None:
    made, results = make_study(tmp_path, problems=3, tables=("main", "ablation-rho")), Results(tmp_path / "toy")
    claims = {result.id: result for result in judge_claims(made, results)}
    assert claims["rho0.2-aime25-1.5b"].same_as is None  # "ρ = 0.2 loses", where the claim before it is "insensitive"
    assert claims["rho0.2-aime25-1.5b"].parts
    assert claims["rho-average-7b"].same_as == "rho-average-1.5b"
    asked = read_claims(made.folder)
    for result in (c for c in claims.values() if c.same_as):
        own, first = (at_scale(asked[i], made) for i in (result.id, result.same_as))
        assert type(own) is type(first)
        if isinstance(own, Higher | Similar):
            assert (own.system, own.others, own.metric) == (first.system, first.others, first.metric)


def test_a_scales_own_claims_are_judged_there_and_shown_nowhere_else(tmp_path: Path) -> None:
    toy = make_study(tmp_path / "a", problems=40, seeds=3), Results(tmp_path / "a" / "toy")
    test = {"kind": "higher", "model": "toy", "system": {"method": "ngrpo"}, "than": [{}], "metric": "mean"}
    test |= {"benchmarks": ["toy-held-out"], "paper": [10.0]}
    own = {"where": "the toy study", "family": "toy", "says": "y", "scale": "toy", "test": test}
    papers = {"where": "x", "family": "x", "says": "y", "test": {**test, "model": MODEL, "benchmarks": ["aime25"]}}
    got = judged(*toy, own=own, papers=papers)
    assert [(got[i].verdict, got[i].scale) for i in ("own", "papers")] == [("supported", "toy"), (None, "paper")]
    paper = make_study(tmp_path / "b", "paper", problems=4), Results(tmp_path / "b" / "paper")
    assert list(judged(*paper, own=own, papers=papers)) == ["papers"]


# --- targets


def test_a_claims_files_are_those_that_its_verdict_reads(study) -> None:
    made, results = study
    test = {
        "kind": "higher",
        "system": {"method": "ngrpo"},
        "than": [{}],
        "metric": "mean",
        "benchmarks": ["aime25", "amc23"],
    }
    asked_claim = {**claim(**test, paper=[10.0]), "test": {"model": MODEL, **test, "paper": [10.0]}}
    (result,) = judged(made, results, it=asked_claim).values()
    asked = claim_files("it", made)
    assert sorted(str(path) for path in asked) == sorted(result.parts[0].files)
    assert len(asked) == 2 * (3 + 1)  # benchmarks; three seeds of N-GRPO, and the base model
    for path in asked:  # each of them is needed
        content = (results.root / path).read_bytes()
        (results.root / path).unlink()
        (again,) = judge_claims(made, results)
        (results.root / path).write_bytes(content)
        # without the base model nothing is left to compare, without a run's evaluation there is a seed fewer
        assert again.verdict == "not run" if path.parts[1] == MODEL else again.parts[0].seeds == 2, path
        assert again.missing, path


def test_every_claim_of_the_paper_can_be_asked_for_at_its_scale() -> None:
    made = load_study(ROOT / "config", "paper")
    made_by_rules = {str(path) for path in made.products.values()}
    paper, claims = read_paper_values(ROOT / "config"), read_claims(ROOT / "config")
    for name in claim_names(made):
        for path in evidence_files(name, claims[name], made, paper):
            known = str(path) in made_by_rules or path.name.endswith(".grades.parquet")
            assert known, (name, path)


def test_a_target_of_a_claim_that_cant_be_asked_says_why(study) -> None:
    made, _ = study
    claims = {
        "typo": claim(kind="loses-none", system={"method": "ngprpo"}, than={}, benchmarks=["aime25"], at_most=1.0),
        "unmeasured": claim(kind="loses-none", system={"method": "stht"}, than={}, benchmarks=["aime25"], at_most=1.0),
    }
    (made.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))
    with pytest.raises(UserError, match=r"no method 'ngprpo'[^$]*did you mean 'ngrpo'"):
        claim_files("typo", made)
    with pytest.raises(UserError, match="no table of scale paper measures stht with standard decoding"):
        claim_files("unmeasured", made)
    with pytest.raises(UserError, match=r"no claim 'typ'[^$]*did you mean 'typo'"):
        claim_files("typ", made)


def asked_of(test: dict, seeds: int) -> set[str]:
    """What a claim as it is written in the file needs, told from its keys alone: systems × seeds × benchmarks."""
    model, numbers = test["model"], ["", *(f"-seed{n}" for n in range(2, seeds + 1))]
    if test["kind"] == "diagnosed":
        return {f"diagnostics/{test['method']}-{model}.json"}
    if test["kind"] in ("logged", "slowdown"):
        methods = [test["method"], *([test["than"]] if test["kind"] == "slowdown" else [])]
        return {f"runs/{method}-{model}{n}/model" for method in methods for n in numbers}
    others = test.get("than", test.get("to"))
    needed = set()
    for system in (test["system"], *(others if isinstance(others, list) else [others])):
        method, decoding = system.get("method"), system.get("decoding", "standard")
        policies = [f"{method}-{model}{n}" for n in numbers] if method else [model]
        needed |= {f"evaluations/{p}/{decoding}/{b}.grades.parquet" for p in policies for b in test["benchmarks"]}
    return needed


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's configuration, with three training seeds at every scale."""
    folder = tmp_path_factory.mktemp("three") / "config"
    shutil.copytree(ROOT / "config", folder)
    for path in (folder / "scales").glob("*.yaml"):
        size = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**size, "seeds": 3, "table_seeds": {}}, sort_keys=False))
    return folder


@pytest.mark.parametrize("scale", ["paper", "toy"])
def test_every_claims_target_makes_its_systems_on_its_benchmarks_with_their_seeds(three_seeds, scale: str) -> None:
    made = load_study(three_seeds, scale)
    written = yaml.safe_load((three_seeds / "claims.yaml").read_text())["claims"]
    own = [name for name in claim_names(made) if written[name].get("scale", "paper") == scale]
    assert len(own) >= (52 if scale == "paper" else 10)
    kinds = set()
    for name in own:
        asked = {str(path) for path in claim_files(name, made)}
        assert asked == asked_of(written[name]["test"], 3), name
        assert {str(path) for path in claim_files(name, made, most=2)} == asked_of(written[name]["test"], 2), name
        kinds.add(written[name]["test"]["kind"])
    everything = {"higher", "similar", "most", "loses-none", "logged", "diagnosed", "slowdown"}
    assert kinds == (everything if scale == "paper" else {"higher", "similar", "loses-none"})


def test_snakemake_runs_those_jobs_for_a_claim_and_no_others(three_seeds, tmp_path: Path) -> None:
    made, results = load_study(three_seeds, "paper"), Results(tmp_path / "paper")
    with contextlib.chdir(ROOT), snakemake_dag(made, results, ("claim-slowdown-1.5b", "claim-rate-matters")) as dag:
        jobs = [job for job in dag.needrun_jobs() if not job.rule.norun]
    trained = {job.wildcards_dict["run"] for job in jobs if job.rule.name == "train"}
    graded = {job.wildcards_dict["evaluation"] for job in jobs if job.rule.name == "grade"}
    numbers = ("", "-seed2", "-seed3")
    rows = ("ngrpo", "ngrpo-always", "ngrpo-always-sampled")
    assert trained == {f"{method}-{MODEL}{n}" for method in (*rows, "grpo") for n in numbers}
    benchmarks = ("aime25", "amc23", "math500")
    assert graded == {f"{m}-{MODEL}{n}/standard/{b}" for m in rows for n in numbers for b in benchmarks}
    stages = ("dataset", "model", "training_data", "neighbors", "train", "sample", "grade")
    assert {job.rule.name.split("-")[0] for job in jobs} == {*stages}
