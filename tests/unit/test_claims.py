"""Every claim of the paper gets its evidence and a verdict, and says in its place what is missing or misnamed."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import ROOT, make_study, write_grades

from ngrpo.audit.status import command
from ngrpo.claims.at_scale import check_names
from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.errors import UserError
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.predicates import Higher, Most, Similar, System, read_claims, systems_of
from ngrpo.study.snapshot import start

CONFIG = ROOT / "config"
MODEL = "r1-qwen-1.5b"
TITLE = "DeepSeek-R1-Distill-Qwen-1.5B"
LABELS = {
    (None, "standard"): "Base",
    (None, "soft-thinking"): "Soft Thinking",
    ("grpo", "standard"): "GRPO",
    ("grpo", "soft-thinking"): "GRPO + Soft Thinking",
    ("stht", "standard"): "STHT",
    ("ngrpo", "standard"): "N-GRPO",
    ("ngrpo", "mixing"): "N-GRPO + mixing",
    ("ngrpo-always", "standard"): "N-GRPO w/o rate",
    ("ngrpo-rho0.15", "standard"): "ρ = 0.15",
    ("ngrpo-always-sampled", "standard"): "N-GRPO w/o rate, sampled text",
    ("ngrpo-rho0.2", "standard"): "ρ = 0.2",
    ("ngrpo-l2", "standard"): "L2",
    ("ngrpo-l1", "standard"): "L1",
    ("gumbel", "standard"): "Gumbel Soft-Thinking",
    ("gspo", "standard"): "GSPO",
    ("ngspo", "standard"): "N-GSPO",
}


def set_claims(study: Study, **claims) -> None:
    (study.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))


def by_id(study: Study, results: Results) -> dict[str, ClaimResult]:
    return {result.id: result for result in judge_claims(study, results)}


def higher(a: str | None, b: str | None, **changes) -> dict:
    test = {"kind": "higher", "model": MODEL, "system": {"method": a}, "than": [{"method": b}], "metric": "mean"}
    test |= {"benchmarks": ["aime25", "amc23"], "paper": [10.0], **changes}
    return {"where": "Table 1", "family": "table1", "says": "One is above the other.", "test": test}


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory):
    """Paper scale, three seeds, 40 problems a benchmark; N-GRPO and GRPO far above Base and alike."""
    folder = tmp_path_factory.mktemp("replicated")
    return make_study(folder, "paper", problems=40, seeds=3), Results(folder / "paper")


@pytest.fixture
def single(tmp_path: Path):
    """Paper scale, one seed, to damage."""
    return make_study(tmp_path, "paper", problems=6), Results(tmp_path / "paper")


def printed(paper: PaperValues, model: str, system: System, on: str, metric: str) -> float:
    """The paper's value in points."""
    return 100 * paper.value("table1", model, LABELS[system.method, system.decoding], on, metric)[0]


def test_the_projects_claims_name_what_exists_and_the_papers_own_differences() -> None:
    study, paper = load_study(CONFIG, "paper"), read_paper_values(CONFIG)
    claims = {name: claim for name, claim in read_claims(CONFIG).items() if claim.scale == "paper"}
    assert len(claims) >= 45
    for name, claim in claims.items():
        check_names(name, claim, study, paper)
        test = claim.test
        if isinstance(test, Higher | Similar) and test.benchmarks != ("aime24",):
            for other, benchmarks, points in test.comparisons():
                on = benchmarks[0] if len(benchmarks) == 1 else "Avg"
                ours, theirs = (printed(paper, test.model, s, on, test.metric) for s in (test.system, other))
                if isinstance(test, Higher):
                    assert points == pytest.approx(ours - theirs, abs=0.006), name
                else:
                    assert abs(ours - theirs) <= points, name
        if isinstance(test, Most):
            best = [
                all(
                    printed(paper, test.model, test.system, b, m) > printed(paper, test.model, s, b, m)
                    for s in test.than
                )
                for b, m in test.cells
            ]
            assert sum(best) == test.paper, name


def test_a_claims_words_and_margins_have_their_source() -> None:
    for name, claim in read_claims(CONFIG).items():
        for text in (claim.where, claim.says, claim.family, getattr(claim.test, "why", "given")):
            assert text, name
    claims = read_claims(CONFIG)
    assert claims["ngrpo-mean-1.5b"].words == "comparable"  # the paper doesn't call it higher
    assert isinstance(claims["ngrpo-mean-1.5b"].test, Similar)
    assert len(claims["rho-average-1.5b"].test.groups) == 1  # the paper speaks of averages, not of each benchmark
    assert [s.method for s in systems_of(claims["neighbors-over-gumbel"].test)] == ["ngrpo", "gumbel"]
    assert claims["inference-mixing-accuracy-7b"].test.metric == "mean"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": {"method": "ngprpo"}}, "no method 'ngprpo'.*did you mean 'ngrpo'"),
        ({"than": [{"method": "grpo", "decoding": "standart"}]}, "no decoding 'standart'.*'standard'"),
        ({"model": "r1-qwen-1.5"}, "no model 'r1-qwen-1.5'.*'r1-qwen-1.5b'"),
        ({"benchmarks": ["aime26"]}, "no benchmark 'aime26'.*'aime2[45]'"),
        ({"scale": "papr"}, "no scale 'papr'.*'paper'"),
    ],
)
def test_a_claim_that_names_what_doesnt_exist_says_so_in_its_place(single, change: dict, message: str) -> None:
    study, results = single
    wrong = higher("ngrpo", "grpo", **{k: v for k, v in change.items() if k != "scale"})
    wrong |= {k: v for k, v in change.items() if k == "scale"}
    set_claims(study, wrong=wrong, right=higher("ngrpo", "grpo"))
    claims = by_id(study, results)
    assert not claims["right"].error
    assert claims["wrong"].error
    assert claims["wrong"].verdict == "not run"
    assert pd.Series([claims["wrong"].reason]).str.contains(message).all(), claims["wrong"].reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "passs@4"}, "metric"),
        ({"paper": [1.0, 2.0]}, "2 differences, than has 1"),
        ({"each": True}, "1 differences, than has 1 systems on 2 benchmarks"),
        ({"paper": [0.0]}, "greater than 0"),
        ({"than": [{"method": "ngrpo"}]}, "compared with itself"),
        ({"benchmark": ["aime25"]}, "did you mean 'benchmarks'"),
        ({"kind": "greater"}, "greater"),
    ],
)
def test_a_claim_that_cant_be_read_is_an_error_with_file_and_key(single, change: dict, message: str) -> None:
    study, results = single
    set_claims(study, wrong=higher("ngrpo", "grpo", **change))
    with pytest.raises(UserError, match=message) as error:
        judge_claims(study, results)
    assert "claims.yaml: claims.wrong" in str(error.value)


def test_large_effects_are_supported_and_their_opposite_contradicted(replicated) -> None:
    study, results = replicated
    set_claims(study, up=higher("ngrpo", None), down=higher(None, "ngrpo"), same=higher("ngrpo", "grpo", paper=[1.0]))
    claims = by_id(study, results)
    assert [claims[i].verdict for i in ("up", "down", "same")] == ["supported", "contradicted", "underpowered"]
    (part,) = claims["up"].parts
    assert part.seeds == 3
    assert part.low > 0
    assert part.problems == 80
    assert part.estimate == pytest.approx(part.a - part.b)
    assert part.estimate == pytest.approx(np.mean(part.by_seed))
    grades = [pd.read_parquet(results.root / file) for file in part.files]
    assert len(grades) == 2 * (3 + 1)  # the base model needs no second seed
    share = {f.split("/")[1]: [] for f in part.files}
    for file, frame in zip(part.files, grades, strict=True):
        share[file.split("/")[1]].append((frame["grade"] == "correct").mean())
    own = np.mean([np.mean(v) for policy, v in share.items() if policy.startswith("ngrpo")])
    assert part.a == pytest.approx(own)
    assert part.b == pytest.approx(np.mean(share[MODEL]))


def test_both_estimators_are_shown_and_pass_at_k_differs_between_them(replicated) -> None:
    study, results = replicated
    both = {e: higher("ngrpo", None, metric="pass@8", estimator=e) for e in ("bootstrap", "unbiased")}
    set_claims(study, **both)
    one, other = (by_id(study, results)[e].parts[0] for e in both)
    assert one.other_estimator == pytest.approx(other.estimate)
    assert other.other_estimator == pytest.approx(one.estimate)
    assert one.estimate != other.estimate


def test_similar_needs_the_interval_within_the_margin(replicated) -> None:
    study, results = replicated
    test = {"kind": "similar", "model": MODEL, "system": {"method": "ngrpo"}, "metric": "mean"}
    test |= {"benchmarks": ["aime25", "amc23"], "whose": "ours", "why": "a test"}

    def claim(to: str | None, within: float, **more) -> dict:
        changed = {**test, "to": [{"method": to}], "within": within, **more}
        return {"where": "x", "family": "x", "says": "y", "test": changed}

    wide = claim("grpo", 40.0)
    set_claims(study, wide=wide, narrow=claim("grpo", 0.1), base=claim(None, 5.0), each=claim("grpo", 40.0, each=True))
    claims = by_id(study, results)
    assert [claims[i].verdict for i in ("wide", "narrow", "base")] == ["supported", "underpowered", "contradicted"]
    assert [p.what.split(": ")[-1] for p in claims["wide"].parts] == [f"Mean@32, average of AIME25, AMC23 ({TITLE})"]
    assert [p.what.split(", ")[-1] for p in claims["each"].parts] == [f"{b} ({TITLE})" for b in ("AIME25", "AMC23")]
    assert claims["wide"].limit == "ours: a test"
    assert claims["wide"].parts[0].reference == "margin (ours)"


def test_logged_metrics_are_judged_over_runs(replicated) -> None:
    study, results = replicated

    def claim(**test) -> dict:
        test = {"model": MODEL, "method": "ngrpo", **test}
        return {"where": "x", "family": "x", "says": "y", "test": test}

    drawn = {"whose": "ours", "why": "a test"}
    cosine = {"kind": "logged", "metric": "mixing_cosine", "paper": 0.9985, **drawn}
    slow = {"kind": "slowdown", "than": "grpo", "paper": 5.0, **drawn}
    set_claims(
        study,
        low=claim(**cosine, at_least=0.99),
        high=claim(**cosine, at_least=0.9995),
        most=claim(**cosine, at_most=0.9995),
        quick=claim(**slow, at_most=20.0),
        quicker=claim(**slow, at_most=1.0),
        misnamed=claim(kind="logged", metric="mixing_cosin", paper=1.0, at_least=0.5, **drawn),
    )
    claims = by_id(study, results)
    verdicts = [claims[i].verdict for i in ("low", "high", "most", "quick", "quicker")]
    assert verdicts == ["supported", "contradicted", "supported", "supported", "contradicted"]
    assert claims["quick"].parts[0].estimate == pytest.approx(1 - 0.4 / 0.42, abs=0.02)
    assert "did you mean 'mixing_cosine'" in claims["misnamed"].reason


def test_one_seed_reproduces_nothing_that_was_trained(single) -> None:
    study, results = single
    set_claims(study, up=higher("ngrpo", None, paper=[60.0]))
    claims = by_id(study, results)["up"]
    assert claims.verdict == "underpowered"
    assert "Set `seeds`" in claims.reason


def test_base_models_under_two_decodings_need_no_second_seed(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=40, tables=("ablation-inference",))
    rng, root = np.random.default_rng(3), Results(tmp_path / "paper")
    for benchmark in ("aime25", "amc23"):
        write_grades(study, root, f"{MODEL}/mixing/{benchmark}", 0.2, 40, rng)
        write_grades(study, root, f"{MODEL}/standard/{benchmark}", 0.8, 40, rng)
    set_claims(study, hurts=higher(None, None, than=[{"decoding": "mixing"}]))
    assert by_id(study, root)["hurts"].verdict == "supported"


def test_missing_evidence_is_not_run_and_named_with_its_command(single) -> None:
    study, results = single
    set_claims(
        study,
        gone=higher("ngrpo", "grpo"),
        unasked=higher("gspo", "grpo"),
        elsewhere=higher("ngrpo", "grpo", benchmarks=["gpqa-diamond"]),
        tries=higher("ngrpo", "grpo", metric="pass@64"),
        whole=higher("ngrpo", "grpo", benchmarks=["math500"]),
        log={
            "where": "x",
            "family": "x",
            "says": "y",
            "test": {
                **{"kind": "slowdown", "model": MODEL, "method": "ngrpo", "than": "grpo", "at_most": 9, "paper": 9},
                **{"whose": "ours", "why": "a test"},
            },
        },
    )
    file = results.evaluation(f"grpo-{MODEL}/standard/amc23").grades
    file.unlink()
    results.run(f"grpo-{MODEL}").model_card.unlink()
    claims = by_id(study, results)
    for name, said in {
        "gone": f"missing: not there yet; made by: snakemake --profile slurm {file}",
        "unasked": "no table of scale paper measures gspo",
        "elsewhere": "measures ngrpo with standard decoding on gpqa-diamond",
        "tries": "pass@64 needs 64 samples",
        "log": f"Training run grpo-{MODEL}: stopped or running at step",
    }.items():
        assert claims[name].verdict == "not run", name
        assert said in " ".join(claims[name].missing), (name, claims[name].missing)
        assert not claims[name].error
    assert claims["whole"].verdict == "underpowered"


@pytest.mark.parametrize("damage", ["n", "spec"])
def test_an_evaluation_with_another_n_or_of_another_scale_is_not_used(single, damage: str) -> None:
    study, results = single
    set_claims(study, claim=higher("ngrpo", "grpo"))
    path = results.evaluation(f"ngrpo-{MODEL}/standard/aime25").grades
    frame = pd.read_parquet(path)
    changed = frame[frame["sample"] < 16] if damage == "n" else frame.assign(spec="0123456789ab")
    changed.to_parquet(path, index=False)
    claims = by_id(study, results)["claim"]
    assert claims.verdict == "not run"
    assert {"n": "another number of samples than 32", "spec": "another spec"}[damage] in claims.missing[0]


def test_a_missing_seed_is_not_left_out_silently(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "paper", problems=4, seeds=2), Results(tmp_path / "paper")
    set_claims(study, claim=higher("ngrpo", "grpo"))
    results.evaluation(f"ngrpo-{MODEL}-seed2/standard/aime25").grades.unlink()
    claims = by_id(study, results)["claim"]
    assert claims.verdict == "underpowered"  # of the one seed that both have
    assert f"ngrpo-{MODEL}-seed2" in claims.missing[0]
    assert claims.parts[0].seeds == 1
    assert claims.parts[0].note.startswith("on 1 of 2 training seeds")


def test_a_scale_without_verdicts_gives_effects_and_none(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, problems=8), Results(tmp_path / "toy")
    claims = by_id(study, results)
    assert {f.verdict for f in claims.values() if f.scale == "paper"} == {None}
    assert {f.id for f in claims.values() if f.verdict} == {i for i in claims if i.startswith("toy-")}
    assert claims["ngrpo-over-grpo-1.5b"].parts[0].what.endswith("(toy Qwen2 (0.3M))")
    assert "toy" in claims["ngrpo-over-grpo-1.5b"].reason
    assert claims["ngrpo-over-grpo-7b"].same_as == "ngrpo-over-grpo-1.5b"
    assert claims["ngrpo-over-grpo-7b"].parts == ()


def test_a_study_without_claims_claims_nothing(single) -> None:
    study, results = single
    (study.folder / "claims.yaml").unlink()
    assert judge_claims(study, results) == []


def test_a_copy_of_the_configuration_judges_as_the_configuration_does(tmp_path: Path) -> None:
    """A job's copy, and a crate's, has one scale's file; another scale's claims are no mistake there."""
    copy = start({"scale": "paper", "config": str(CONFIG), "results": str(tmp_path)})
    assert not list(copy.snapshot.glob("scales/toy.yaml"))
    assert copy.study.folder == copy.asked.folder == copy.snapshot  # what is edited meanwhile is for the next start
    in_job = load_study(copy.snapshot, "paper")
    assert f" --config config={CONFIG} " in command(in_job, copy.results, "main")  # not the copy that jobs read
    spaced = command(replace(in_job, named=Path("my study/config")), Results(Path("my results/paper")), "main")
    assert shlex.split(spaced)[-3:] == ["config=my study/config", "scale=paper", "results=my results"]
    claims = judge_claims(in_job, copy.results)
    assert not [claim.id for claim in claims if claim.error]
    assert {claim.scale for claim in claims} == {"paper"}


def test_a_claim_of_a_scale_that_there_isnt_is_refused_when_the_configuration_is_read(single) -> None:
    study, _ = single
    set_claims(study, wrong={**higher("ngrpo", "grpo"), "scale": "papr"})
    with pytest.raises(UserError, match=r"no scale 'papr'[^$]*claims.wrong.scale[^$]*did you mean 'paper'"):
        load_study(study.folder, "paper")
