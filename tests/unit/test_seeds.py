"""Training seeds grow by table and claim: one more trains nothing again, and readers take those that are there."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from finished_study import FinishedStudy
from synthetic_study import make_study, write_grades

from ngrpo.claims.needs import claim_files
from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.errors import UserError
from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.report.paper_tables import beside
from ngrpo.report.tables import table_frame
from ngrpo.study.expand import Study, load_study
from ngrpo.study.layout import Results
from ngrpo.study.settings import read_settings
from ngrpo.study.shown import page_digest

CLAIM = "toy-ngrpo-as-good"


def edit(config: Path, name: str, **changes: object) -> None:
    """Set keys (a__b for b of a) of a configuration file."""
    value = yaml.safe_load((config / name).read_text())
    for key, new in changes.items():
        *path, last = key.split("__")
        part = value
        for step in path:
            part = part[step]
        part[last] = new
    (config / name).write_text(yaml.safe_dump(value, sort_keys=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """A toy study of one seed, whole, as Snakemake has it."""
    return FinishedStudy(tmp_path_factory.mktemp("seeds") / "project", ("main", "ablation-rho"))


def planned(study: FinishedStudy, *targets: str, **settings: object) -> set[tuple[str, str]]:
    """(rule, its wildcard) of every job that Snakemake would run."""
    with contextlib.chdir(study.folder):
        files = Results(Path("results/toy"))
        made = load_study(Path("config"), "toy", files.root)
        with snakemake_dag(made, files, targets or ("all",), None, **settings) as dag:
            return {
                (job.rule.name, next(iter(job.wildcards_dict.values()), ""))
                for job in dag.needrun_jobs()
                if not job.rule.norun
            }


def again(method: str, *seeds: int) -> set[tuple[str, str]]:
    """The jobs of a method's further seeds on the toy's benchmark."""
    runs = [f"{method}-toy-seed{seed}" for seed in seeds]
    graded = {("grade", f"{run}/standard/toy-held-out") for run in runs}
    return graded | {("train", run) for run in runs} | {("sample-toy-held-out", f"{run}/standard") for run in runs}


PAGE = {("report", "")}
BOTH = again("grpo", 2) | again("ngrpo", 2)


@pytest.mark.parametrize(
    ("name", "changes", "jobs"),
    [
        ("scales/toy.yaml", {"seeds": 2}, BOTH | again("ngrpo-rho0.15", 2) | again("ngrpo-rho0.2", 2) | PAGE),
        ("scales/toy.yaml", {"table_seeds": {"main": 2}}, BOTH | PAGE),
        ("scales/toy.yaml", {"table_seeds": {"main": 3, "ablation-rho": 2}}, BOTH | again("grpo", 3)
         | again("ngrpo", 3) | again("ngrpo-rho0.15", 2) | again("ngrpo-rho0.2", 2) | PAGE),
        ("study.yaml", {"tables__main__seeds": 2}, BOTH | PAGE),
        ("claims.yaml", {f"claims__{CLAIM}__seeds": 2}, BOTH | PAGE),
        ("claims.yaml", {"claims__ngrpo-over-grpo-1.5b__seeds": 2}, PAGE),  # the paper's is not judged here
    ],
)  # fmt: skip
def test_another_seed_makes_that_seeds_runs_and_nothing_again(finished, name: str, changes, jobs) -> None:
    before = (finished.config / name).read_bytes()
    try:
        edit(finished.config, name, **changes)
        new = planned(finished)
        assert {job for job in new if job[0] not in ("notebook", "analyze")} == jobs
        # differences are over all seeds; N-GRPO is in both tables
        tables = {name for rule, name in new if rule == "analyze"}
        assert tables == ({"main", "ablation-rho"} if jobs != PAGE else set())
    finally:
        (finished.config / name).write_bytes(before)


def test_a_start_may_ask_for_fewer_and_a_target_for_its_own(finished) -> None:
    before = (finished.config / "scales" / "toy.yaml").read_bytes()
    try:
        edit(finished.config, "scales/toy.yaml", table_seeds={"main": 3})
        trained = {job for job in planned(finished, max_seeds=2) if job[0] == "train"}
        assert trained == {("train", "grpo-toy-seed2"), ("train", "ngrpo-toy-seed2")}
        assert not {job for job in planned(finished, max_seeds=1) if job[0] == "train"}
        assert {job for job in planned(finished, "main") if job[0] == "train"} == {
            ("train", f"{method}-toy-seed{seed}") for method in ("grpo", "ngrpo") for seed in (2, 3)
        }
        # ρ = 0.2 has one seed: the claim compares on that one, and asks for no other
        assert not planned(finished, "claim-toy-rho-matters-little")
        assert planned(finished, "claim-toy-grpo-learns") == again("grpo", 2, 3)
    finally:
        (finished.config / "scales" / "toy.yaml").write_bytes(before)


@pytest.mark.parametrize("number", [0, [2, 2], 21, "two"])
def test_a_claims_seeds_that_cant_be_are_named(tmp_path: Path, number) -> None:
    made = make_study(tmp_path, problems=2)
    edit(made.folder, "claims.yaml", **{f"claims__{CLAIM}__seeds": number})
    with pytest.raises(UserError, match=rf"claims\.{CLAIM}\.seeds") as error:
        load_study(made.folder, "toy")
    said = {0: "greater than or equal to 1", 21: "the scale's max_seeds is 20"}
    assert said.get(number if isinstance(number, int) else -1, "seeds are a number") in str(error.value)


@pytest.mark.parametrize("number", [0, "[1, 2]"])
def test_a_start_is_told_of_its_own_number(number) -> None:
    with pytest.raises(UserError, match="max_seeds"):
        read_settings({"max_seeds": number})


@pytest.fixture
def unequal(tmp_path: Path) -> tuple[Study, Results]:
    """Three seeds of N-GRPO, one of them not of GRPO, which its tables give two."""
    made, results = make_study(tmp_path, problems=40, tables=("main", "objective"), seeds=3), Results(tmp_path / "toy")
    claims = yaml.safe_load((made.folder / "claims.yaml").read_text())["claims"]
    gone = results.evaluation("grpo-toy-seed3/standard/toy-held-out").grades
    gone.unlink()
    asked = {name: claims[name] for name in ("toy-ngrpo-learns", CLAIM)}
    (made.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": asked}))
    edit(made.folder, "scales/toy.yaml", seeds=1, table_seeds={"main": 2})
    return load_study(made.folder, "toy", results.root), results


def judged(study: Study, results: Results) -> dict[str, ClaimResult]:
    return {claim.id: claim for claim in judge_claims(study, results)}


def test_seeds_that_are_there_count_whoever_asked_and_systems_are_paired_on_common_ones(unequal) -> None:
    study, results = unequal
    claims = judged(study, results)
    assert claims["toy-ngrpo-learns"].parts[0].seeds == 3
    both = claims[CLAIM].parts[0]
    assert both.seeds == 2
    assert both.note == "paired on common training seeds: one system alone has seed 3"
    assert not claims[CLAIM].reason.startswith("One training seed")
    assert claims[CLAIM].missing == ()
    # without the results nobody knows of the third
    assert load_study(study.folder, "toy").seeds_of("ngrpo-toy/standard/toy-held-out") == [1, 2]
    assert [str(path) for path in claim_files(CLAIM, study)] == [
        f"evaluations/{run}-toy{seed}/standard/toy-held-out.grades.parquet"
        for run in ("ngrpo", "grpo")
        for seed in ("", "-seed2")
    ]


def test_a_table_takes_the_seeds_that_are_there(unequal) -> None:
    study, results = unequal
    sheet = beside(table_frame("main", study, results), study, results, None)
    seeds = sheet.groupby("label")["seeds"].first()
    assert dict(seeds) == {"Base": 1, "GRPO": 2, "N-GRPO": 3}


def test_a_seed_that_is_lost_on_one_side_is_left_out_and_named(unequal) -> None:
    study, results = unequal
    results.evaluation("grpo-toy-seed2/standard/toy-held-out").grades.unlink()
    claim = judged(study, results)[CLAIM]
    assert claim.verdict == "underpowered"
    assert claim.parts[0].seeds == 1
    assert claim.parts[0].note.startswith("on 1 of 2 training seeds; paired on common")
    assert "grpo-toy-seed2/standard/toy-held-out" in claim.missing[0]
    results.evaluation("grpo-toy/standard/toy-held-out").grades.unlink()
    gone = judged(study, results)[CLAIM]
    assert gone.verdict == "not run"


def test_a_page_is_made_anew_for_seeds_that_came(unequal) -> None:
    study, results = unequal
    before = page_digest(study)
    write_grades(study, results, "ngrpo-toy/standard/toy-held-out", 0.8, 40, np.random.default_rng(1))
    assert page_digest(load_study(study.folder, "toy", results.root)) == before
    path = results.evaluation("ngrpo-toy-seed3/standard/toy-held-out").grades
    path.unlink()
    assert page_digest(load_study(study.folder, "toy", results.root)) != before
