"""`snakemake decide-CLAIM`: training seeds are added until a claim is decided, or nothing more is to be had."""

import json
from pathlib import Path

import pytest
import yaml
from finished_study import FinishedStudy
from synthetic_study import ROOT, make_study
from test_seeds import again, edit, planned

from ngrpo.claims.looks import read_looks
from ngrpo.errors import UserError
from ngrpo.planning.sequential import claim_to_decide, decide, looks_at, planned_looks
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results

CLAIM = "toy-ngrpo-over-grpo"
TARGET = (f"decide-{CLAIM}", f"decide-{CLAIM}")


def both(*seeds: int) -> set[tuple[str, str]]:
    return again("grpo", *seeds) | again("ngrpo", *seeds)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedStudy:
    """A toy study of three seeds, whole, of two problems."""
    return FinishedStudy(tmp_path_factory.mktemp("decide") / "project", seeds=3)


def decision(study: FinishedStudy, seeds: int) -> Path:
    return study.results / "toy" / "decisions" / f"{CLAIM}.{seeds}.json"


@pytest.mark.parametrize(
    ("least", "most", "numbers"),
    [
        (1, 20, [3, 5, 8, 12, 18, 20]),
        (4, 20, [5, 8, 12, 18, 20]),
        (10, 12, [12]),
        (1, 2, [2]),
        (3, 3, [3]),
        (7, 5, [7]),
    ],
)
def test_looks_are_at_half_as_many_again_up_to_the_last(least: int, most: int, numbers: list[int]) -> None:
    assert looks_at(least, most) == numbers


def test_the_first_look_takes_the_seeds_that_are_there_and_trains_none(finished) -> None:
    jobs = planned(finished, TARGET[0])
    assert {job for job in jobs if job[0] != "decide"} == {(TARGET[0], "")}
    assert ("decide", CLAIM) in jobs


def test_the_report_of_the_same_start_is_not_made_anew_for_seeds_that_may_come(finished) -> None:
    assert not {job for job in planned(finished, "all", TARGET[0]) if job[0] in ("report", "notebook", "analyze")}


def test_it_runs_until_no_seed_is_allowed_and_the_next_start_goes_on(finished) -> None:
    words = (f"environments={{workflow: {ROOT / '.venv'}}}", "max_seeds=3")
    ended = finished.snakemake(TARGET[0], settings=words)
    assert ended.returncode == 0, ended.stdout
    assert "not decided: toy-ngrpo-over-grpo is underpowered with 3 training seeds on these benchmarks" in ended.stdout
    assert "max_seeds 3 is reached; another seed costs" in ended.stdout
    made = json.loads(decision(finished, 3).read_text())
    assert (made["seeds"], made["decided"], made["over"]) == (3, False, False)
    looks = read_looks(Results(finished.results / "toy"))
    assert list(looks) == [CLAIM]
    second = decide(CLAIM, finished.study(), Results(finished.results / "toy"), 3)  # the same data: no new look
    assert second.line in ended.stdout
    assert read_looks(Results(finished.results / "toy")) == looks
    assert all(len(side) == 1 for question in looks[CLAIM].values() for side in question.values())

    # a greater number goes on where this one ended: seeds 4 and 5 before the next look
    nexts = {("decide", CLAIM), (TARGET[0], "")}
    assert planned(finished, TARGET[0]) == both(4, 5) | nexts
    assert {job[1] for job in planned(finished, TARGET[0], max_seeds=4) if job[0] == "train"} == {
        "grpo-toy-seed4",
        "ngrpo-toy-seed4",
    }
    assert not {job for job in planned(finished, TARGET[0], max_seeds=3) if job[0] == "train"}
    decision(finished, 3).write_text(json.dumps({"over": True}))
    assert not {job for job in planned(finished, TARGET[0]) if job[0] == "train"}


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (("decide-toy-ngrpo-over-grp",), (), "there is no target 'decide-toy-ngrpo-over-grp'"),
        (("decide-ngrpo-over-grpo-1.5b",), (), "claim 'ngrpo-over-grpo-1.5b' gets no verdict at this scale"),
        (("all",), ("decide=toy-ngrpo-over-grp",), "there is no claim 'toy-ngrpo-over-grp'\n  where: --config decide="),
        ((TARGET[0],), ("max_seeds=1",), "with max_seeds 1 nothing is decided about a trained policy"),
    ],
)
def test_what_cant_be_decided_is_one_message(finished, words, settings, message: str) -> None:
    ended = finished.snakemake("-n", *words, settings=settings)
    assert ended.returncode == 1
    assert message in ended.stdout
    assert "Traceback" not in ended.stdout


def paper(folder: Path, seeds: int, **changes: object):
    """A synthetic study at paper scale with one model, whose costs are declared."""
    made = make_study(folder, "paper", problems=40, seeds=seeds)
    (made.folder / "costs.yaml").write_bytes((ROOT / "config" / "costs.yaml").read_bytes())
    claims = yaml.safe_load((made.folder / "claims.yaml").read_text())["claims"]
    asked = {name: claims[name] for name in ("ngrpo-over-grpo-1.5b", "gumbel-over-base")}
    asked["ngrpo-over-grpo-1.5b"]["test"] = {**asked["ngrpo-over-grpo-1.5b"]["test"], **changes}
    (made.folder / "claims.yaml").write_text(yaml.safe_dump({"claims": asked}))
    return load_study(made.folder, "paper", folder / "paper"), Results(folder / "paper")


def test_a_decided_claim_is_over_and_its_line_says_with_what(tmp_path: Path) -> None:
    study, results = paper(tmp_path, 3, than=[{}], metric="mean", paper=[10.0])
    outcome = decide("ngrpo-over-grpo-1.5b", study, results)
    assert (outcome.decided, outcome.over, outcome.seeds, outcome.verdict) == (True, True, 3, "supported")
    assert outcome.line.startswith("decided: ngrpo-over-grpo-1.5b is supported with 3 training seeds on these bench")
    assert "another seed costs" in outcome.line
    assert "USD" in outcome.line
    assert planned_looks("ngrpo-over-grpo-1.5b", study, results) == [3, 5, 8, 12, 18, 20]
    with pytest.raises(UserError, match=r"no claim 'gumbel-over-bas'.*\n.*\n.*did you mean 'gumbel-over-base'"):
        claim_to_decide("gumbel-over-bas", study)


def test_what_no_number_of_seeds_decides_trains_nothing(tmp_path: Path) -> None:
    study, results = paper(tmp_path, 1, benchmarks=["aime25"], paper=[0.05])
    assert planned_looks("ngrpo-over-grpo-1.5b", study, results) == []
    outcome = decide("ngrpo-over-grpo-1.5b", study, results)
    assert (outcome.decided, outcome.over) == (False, True)
    assert "no number of training seeds decides it (ngrpo power ngrpo-over-grpo-1.5b)" in outcome.line


def test_a_claims_own_seeds_are_the_first_look(tmp_path: Path) -> None:
    study, results = paper(tmp_path, 1)
    edit(study.folder, "claims.yaml", **{"claims__ngrpo-over-grpo-1.5b__seeds": 10})
    assert planned_looks("ngrpo-over-grpo-1.5b", load_study(study.folder, "paper"), results)[0] == 12
