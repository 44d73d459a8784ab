"""What the file on exploration says of a table's systems is what their grades and responses say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_study import make_study

from ngrpo.errors import UserError
from ngrpo.report import exploration
from ngrpo.report.exploration import MEASURES, OF_SAMPLES, SHARES, exploration_frame, read_exploration
from ngrpo.report.tables import analyze
from ngrpo.statistics.diversity import mean_interval, self_bleu, words
from ngrpo.study.layout import Results

GRPO, MIXED = "grpo-toy/standard/toy-held-out", "ngrpo-toy/standard/toy-held-out"


@pytest.fixture
def toy(tmp_path: Path):
    """A finished toy study of a few problems, to damage."""
    return make_study(tmp_path, problems=6), Results(tmp_path / "toy")


def value_of(frame: pd.DataFrame, measure: str, label: str, against: str | None = None) -> pd.Series:
    """The one row of a measure of a system, or of its difference."""
    own = frame[(frame["measure"] == measure) & (frame["label"] == label)]
    (row,) = own[own["against"].isna() if against is None else own["against"] == against].to_dict("records")
    return pd.Series(row)


def test_every_system_has_every_measure_and_all_but_the_reference_a_difference(toy) -> None:
    frame = exploration_frame("main", *toy)
    names = {measure.name for measure in MEASURES}
    for label, part in frame.groupby("label"):
        assert set(part[part["against"].isna()]["measure"]) == names
        assert set(part[part["against"].notna()]["measure"]) == (set() if label == "GRPO" else {*names, *SHARES})
    assert set(frame["against"].dropna()) == {"GRPO"}
    assert frame["value"].notna().all()


def test_answers_that_are_right_are_one_answer_however_they_are_written(toy) -> None:
    study, results = toy
    path = results.evaluation(GRPO).grades
    grades = pd.read_parquet(path)
    grades["grade"], grades["extracted"] = "correct", grades["sample"].astype(str)
    grades.to_parquet(path, index=False)
    row = value_of(exploration_frame("main", study, results), "answers", "GRPO")
    assert (row["value"], row["problems"], row["samples"]) == (1.0, 6, 32)
    grades["grade"] = "wrong"
    grades.to_parquet(path, index=False)
    frame = exploration_frame("main", study, results)
    assert value_of(frame, "answers", "GRPO")["value"] == 32
    assert value_of(frame, "entropy", "GRPO")["value"] == pytest.approx(np.log(32))


def test_no_interval_goes_beyond_what_its_measure_can_be(toy) -> None:
    """One problem of six with two answers; the control: Student's interval reaches below the least entropy."""
    study, results = toy
    path = results.evaluation(GRPO).grades
    grades = pd.read_parquet(path)
    grades["grade"], grades["extracted"] = "wrong", "7"
    grades.loc[(grades["problem_id"] == "0000") & (grades["sample"] < 16), "extracted"] = "8"
    grades.to_parquet(path, index=False)
    frame = exploration_frame("main", study, results)
    assert mean_interval(np.array([np.log(2), 0, 0, 0, 0, 0]))[0] < 0
    assert value_of(frame, "entropy", "GRPO")["low"] == 0
    assert value_of(frame, "answers", "GRPO")["low"] == 1
    for measure in MEASURES:
        own = frame[(frame["measure"] == measure.name) & frame["against"].isna()]
        assert own["low"].ge(measure.least).all(), measure
        assert own["high"].le(measure.most).all(), measure


def test_gained_and_lost_are_shares_of_problems_that_one_of_two_never_solves(toy) -> None:
    study, results = toy
    for evaluation, never in ((GRPO, ("0000", "0001", "0002")), (MIXED, ("0002", "0003"))):
        path = results.evaluation(evaluation).grades
        grades = pd.read_parquet(path)
        grades["grade"] = np.where(grades["problem_id"].str.endswith(never), "wrong", "correct")
        grades.to_parquet(path, index=False)
    frame = exploration_frame("main", study, results)
    gained, lost = (value_of(frame, share, "N-GRPO", "GRPO") for share in SHARES)
    assert (gained["value"], lost["value"]) == (2 / 6, 1 / 6)
    assert 0 <= lost["low"] < lost["value"] < lost["high"] <= 1


def test_texts_are_compared_on_some_problems_and_responses_and_the_file_says_on_how_many(toy, monkeypatch) -> None:
    study, results = toy
    monkeypatch.setattr(exploration, "PROBLEMS", 3)
    row = value_of(exploration_frame("main", study, results), "self_bleu", "GRPO")
    samples = pd.read_parquet(results.evaluation(GRPO).samples)
    chosen = samples[samples["problem_id"].str.endswith(("0000", "0002", "0005")) & (samples["sample"] < 8)]
    said = chosen.groupby("problem_id")["text"].agg(lambda texts: self_bleu([words(text) for text in texts]))
    assert (row["value"], row["problems"], row["samples"]) == (pytest.approx(said.mean()), 3, 8)


def test_without_responses_answers_are_still_counted_and_of_other_responses_nothing_is(toy) -> None:
    study, results = toy
    files = results.evaluation(MIXED)
    for damage in (
        lambda: pd.read_parquet(files.samples).assign(spec="0" * 12).to_parquet(files.samples, index=False),
        lambda: files.samples.unlink(),
    ):
        damage()
        frame = exploration_frame("main", study, results)
        assert np.isnan([value_of(frame, name, "N-GRPO")["value"] for name in OF_SAMPLES]).all()
        assert value_of(frame, "answers", "N-GRPO")["value"] > 0
    assert "the responses are gone" in value_of(frame, "answers", "N-GRPO")["note"]
    files.grades.unlink()
    lost = value_of(exploration_frame("main", study, results), "answers", "N-GRPO")
    assert np.isnan(lost["value"])
    assert "made by: snakemake" in lost["note"]


def test_the_file_is_read_as_it_was_written_and_another_is_refused(toy) -> None:
    study, results = toy
    analyze("main", study, results, results.table("main"), results.exploration("main"))
    frame = read_exploration(results.exploration("main"))
    assert len(frame) == len(exploration_frame("main", study, results))
    frame.assign(measure="novelty").to_parquet(results.exploration("main"), index=False)
    with pytest.raises(UserError, match="'novelty' is no measure"):
        read_exploration(results.exploration("main"))
