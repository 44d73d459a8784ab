"""No problem and no sample gets lost, or comes twice, between the data's card, the samples' card, grades and table."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import make_study

from ngrpo.audit.status import read_grades
from ngrpo.files import read_json, write_json
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

EVALUATION = "ngrpo-toy/standard/toy-held-out"
Spoil = Callable[[Results], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Results]:
    folder = tmp_path_factory.mktemp("study")
    return make_study(folder, problems=6), Results(folder / "toy")


def rewritten(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    """Grades, changed."""

    def spoil(results: Results) -> None:
        path = results.evaluation(EVALUATION).grades
        change(pd.read_parquet(path)).to_parquet(path, index=False)

    return spoil


def without_the_hardest(frame: pd.DataFrame) -> pd.DataFrame:
    right = (frame["grade"] == "correct").groupby(frame["problem_id"]).sum()
    return frame[~frame["problem_id"].isin(right.nsmallest(3).index)]


def with_a_card(which: str, **values: object) -> Spoil:
    """A card with other values: card of the samples or of the data."""

    def spoil(results: Results) -> None:
        files = {"samples": results.evaluation(EVALUATION).samples_card, "data": results.dataset("toy-held-out").card}
        write_json(files[which], read_json(files[which]) | values)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(results: Results) -> None:
        for each in spoils:
            each(results)

    return spoil


FIRST = "toy-held-out-0000"
dropped = rewritten(without_the_hardest)
SPOILT: dict[str, tuple[Spoil, str]] = {
    "the hardest problems dropped": (dropped, "3 problems are graded, 6 were sampled"),
    "and from the samples' card": (
        both(dropped, with_a_card("samples", problems=3, sampled=3, samples=96)),
        "3 problems are accounted for, 6 are asked",
    ),
    "and called too long": (
        both(dropped, with_a_card("samples", sampled=3, samples=96, overlong_prompts={"a": 9, "b": 9, "c": 9})),
        "its problems aren't those of toy-held-out",
    ),
    "and from the data's card": (
        both(dropped, with_a_card("samples", problems=3, sampled=3, samples=96), with_a_card("data", rows_out=3)),
        "its problems aren't those of toy-held-out",
    ),
    "an easy problem under another id": (
        rewritten(lambda f: f.replace({"problem_id": {FIRST: "toy-held-out-0099"}})),
        "its problems aren't those of toy-held-out",
    ),
    "a problem twice": (
        rewritten(lambda f: pd.concat([f, f[f["problem_id"] == FIRST]])),
        "1 of 6 problems have another number of samples than 32 (toy-held-out-0000: 64)",
    ),
    "a sample twice in another's place": (
        rewritten(lambda f: f.assign(sample=f["sample"].where(f["sample"] != 5, 7))),
        "samples are there twice",
    ),
    "a sample beyond n": (
        rewritten(lambda f: f.assign(sample=f["sample"] + 1)),
        "have a number beyond 0 … 31",
    ),
    "one sample dropped": (
        rewritten(lambda f: f.drop(index=3)),
        "1 of 6 problems have another number of samples than 32 (toy-held-out-0000: 31)",
    ),
    "samples of another spec": (with_a_card("samples", spec="0" * 12), "drawn for another spec"),
    "a card that contradicts itself": (with_a_card("samples", problems=9), "counts 6 + 0 problems of 9"),
    "samples that don't add up": (with_a_card("samples", samples=7), "counts 7 samples of 6 × 32"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_whatever_is_dropped_or_doubled_is_said(name: str, study: tuple[Study, Results]) -> None:
    made, results = study
    files = results.evaluation(EVALUATION)
    paths = (files.grades, files.samples_card, results.dataset("toy-held-out").card)
    whole = {path: path.read_bytes() for path in paths}
    assert read_grades(made, results, EVALUATION).status == "ok"
    spoil, said = SPOILT[name]
    try:
        spoil(results)
        read = read_grades(made, results, EVALUATION)
        assert (read.status, read.frame) == ("incomplete", None)
        assert said in read.note
    finally:
        for path, content in whole.items():
            path.write_bytes(content)


def test_problems_that_were_never_there_are_named(study: tuple[Study, Results]) -> None:
    made, results = study
    path = results.dataset("toy-held-out").problems
    pd.DataFrame({"id": [f"toy-held-out-{i:04d}" for i in range(6)]}).to_parquet(path)
    grades = results.evaluation(EVALUATION).grades
    whole = grades.read_bytes()
    SPOILT["an easy problem under another id"][0](results)
    assert "there is no 'toy-held-out-0099'" in read_grades(made, results, EVALUATION).note
    grades.write_bytes(whole)


def test_cards_of_an_older_version_without_ids_are_still_counted(study: tuple[Study, Results], tmp_path: Path) -> None:
    made, results = study
    card = results.dataset("toy-held-out").card
    whole = card.read_bytes()
    old = {key: value for key, value in read_json(card).items() if key != "asked"}
    write_json(card, old)
    assert read_grades(made, results, EVALUATION).status == "ok"
    write_json(card, old | {"rows_out": 7})
    assert "6 problems are accounted for, 7 are asked" in read_grades(made, results, EVALUATION).note
    card.write_bytes(whole)
