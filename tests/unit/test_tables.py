"""A table's file says what the grades say, with both intervals, and says in its place what can't be used."""

from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from synthetic_study import make_study

from ngrpo.errors import UserError
from ngrpo.files import read_json, write_json
from ngrpo.report.tables import SCHEMA, analyze, read_table, table_frame, terminal_table
from ngrpo.study.cards import id_digest
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import AVERAGE

NUMBERS = ["value", "sampling_low", "sampling_high", "problems_low", "problems_high"]
GRPO = "grpo-toy/standard/toy-held-out"


@pytest.fixture
def toy(tmp_path: Path):
    return make_study(tmp_path, problems=12), Results(tmp_path / "toy")


def own_values(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["against"].isna()]


def cell(frame: pd.DataFrame, label: str, metric: str, estimator: str) -> pd.Series:
    rows = frame[(frame["label"] == label) & (frame["metric"] == metric) & (frame["estimator"] == estimator)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_file_has_its_declared_schema_and_same_input_gives_same_bytes(toy, tmp_path: Path) -> None:
    study, results = toy
    for name in ("a.parquet", "b.parquet"):
        analyze("main", study, results, tmp_path / name)
    assert pq.read_schema(tmp_path / "a.parquet").equals(SCHEMA)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_values_equal_those_recomputed_from_the_grades(toy) -> None:
    study, results = toy
    frame = own_values(table_frame("main", study, results))
    for one in study.cells["main"]:
        grades = pd.read_parquet(results.evaluation(one.evaluation).grades)
        correct = (grades["grade"] == "correct").groupby(grades["problem_id"]).sum()
        mean = cell(frame, one.label, "Mean@32", "mean")
        assert mean["value"] == pytest.approx((grades["grade"] == "correct").mean(), abs=1e-12)
        for k in (2, 16, 32):
            unbiased = np.mean([1 - comb(32 - int(c), k) / comb(32, k) for c in correct])
            assert cell(frame, one.label, f"Pass@{k}", "unbiased")["value"] == pytest.approx(unbiased, abs=1e-12)
            expected = np.mean([1 - (1 - c / 32) ** k for c in correct])
            assert cell(frame, one.label, f"Pass@{k}", "bootstrap")["value"] == pytest.approx(expected, abs=0.02)
        for grade, number in grades["grade"].value_counts().items():
            assert mean[grade] == number
        assert mean["problems"] * mean["n"] == len(grades)


def test_every_value_lies_in_both_of_its_intervals_and_problems_add_to_samples(toy) -> None:
    frame = own_values(table_frame("main", *toy))
    for interval in ("sampling", "problems"):
        assert (frame[f"{interval}_low"] <= frame["value"] + 1e-12).all()
        assert (frame["value"] <= frame[f"{interval}_high"] + 1e-12).all()
    means = frame[frame["estimator"] == "mean"]
    widths = {i: (means[f"{i}_high"] - means[f"{i}_low"]).to_numpy() for i in ("sampling", "problems")}
    assert (widths["problems"] > widths["sampling"]).all()


def test_differences_are_paired_rows_of_two_systems(toy) -> None:
    frame = table_frame("main", *toy)
    pairs = frame[frame["against"].notna()]
    assert set(zip(pairs["label"], pairs["against"], strict=True)) == {
        ("GRPO", "Base"),
        ("N-GRPO", "Base"),
        ("N-GRPO", "GRPO"),
    }
    values = own_values(frame).set_index(["label", "metric", "estimator"])["value"]
    for _, row in pairs.iterrows():
        key = (row["metric"], row["estimator"])
        drawn = 5e-3 if row["estimator"] == "bootstrap" else 1e-12  # a difference is of expectations, a value is drawn
        assert row["value"] == pytest.approx(values[(row["label"], *key)] - values[(row["against"], *key)], abs=drawn)
    assert pairs["p"].between(0, 1).all()


def damaged(kind: str, results: Results) -> Path:
    """Do this damage to the GRPO evaluation's grades."""
    path = results.evaluation(GRPO).grades
    grades = pd.read_parquet(path)
    if kind == "missing":
        path.unlink()
    elif kind == "other spec":
        grades.assign(spec="0123456789ab").to_parquet(path)
    elif kind == "incomplete":
        grades.iloc[:-3].to_parquet(path)
    elif kind == "unreadable":
        path.write_bytes(path.read_bytes()[:100])
    return path


@pytest.mark.parametrize("kind", ["missing", "other spec", "incomplete", "unreadable"])
def test_an_evaluation_that_cant_be_used_says_so_in_its_place(toy, kind: str) -> None:
    study, results = toy
    whole = table_frame("main", study, results)
    path = damaged(kind, results)
    frame = table_frame("main", study, results)
    assert len(frame) == len(whole)
    lost = frame[(frame["label"] == "GRPO") | (frame["against"] == "GRPO")]
    assert set(lost["status"]) == {kind}
    assert lost[NUMBERS].isna().all().all()
    assert lost["note"].str.contains("snakemake --cores 2").all()
    assert lost["note"].str.contains(str(path), regex=False).all()
    others = frame.drop(lost.index)
    assert set(others["status"]) == {"ok"}
    pd.testing.assert_frame_equal(others, whole.loc[others.index], check_dtype=False)
    assert f"GRPO     {kind}" in terminal_table(frame)
    assert f"GRPO     {kind}" not in terminal_table(whole)


def test_prompts_that_were_not_sampled_are_noted(toy) -> None:
    study, results = toy
    card = results.evaluation(GRPO).samples_card
    write_json(card, {**read_json(card), "problems": 14, "overlong_prompts": {"x": 99, "y": 98}})
    data = results.dataset("toy-held-out").card
    ids = [*pd.read_parquet(results.evaluation(GRPO).grades)["problem_id"], "x", "y"]
    write_json(data, {**read_json(data), "rows_out": 14, "asked": id_digest(ids)})
    frame = table_frame("main", study, results)
    noted = frame[(frame["label"] == "GRPO") & frame["against"].isna()]
    assert set(noted["status"]) == {"ok"}
    assert noted["note"].str.contains("2 of 14 prompts").all()


def test_the_average_weighs_benchmarks_equally_and_adds_independent_errors(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=6)
    frame = table_frame("main", study, Results(tmp_path / "paper"))
    keys = ["label", "model", "metric", "estimator"]
    parts = own_values(frame)
    for key, rows in parts.groupby(keys, sort=False):
        single, average = rows[rows["benchmark"] != AVERAGE], rows[rows["benchmark"] == AVERAGE]
        assert (len(single), len(average)) == (3, 1), key
        mean = average.iloc[0]
        assert mean["value"] == pytest.approx(single["value"].mean(), abs=1e-12)
        for interval in ("sampling", "problems"):
            arms = (single["value"] - single[f"{interval}_low"]) ** 2
            assert mean["value"] - mean[f"{interval}_low"] == pytest.approx(np.sqrt(arms.sum()) / 3, abs=1e-12)
            assert 0 <= mean[f"{interval}_low"] <= mean["value"] <= mean[f"{interval}_high"] <= 1
        assert mean["correct"] == single["correct"].sum()


def test_there_is_no_average_over_what_is_left(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=6)
    results = Results(tmp_path / "paper")
    gone = next(c for c in study.cells["main"] if c.label == "GRPO")
    results.evaluation(gone.evaluation).grades.unlink()
    frame = own_values(table_frame("main", study, results))
    average = frame[(frame["benchmark"] == AVERAGE) & (frame["model"] == gone.model)]
    assert average.loc[average["label"] == "GRPO", NUMBERS].isna().all().all()
    assert average.loc[average["label"] == "GRPO", "note"].str.contains(gone.benchmark).all()
    assert average.loc[average["label"] == "N-GRPO", NUMBERS].notna().all().all()


def test_the_terminal_table_says_what_it_shows(toy) -> None:
    frame = table_frame("main", *toy)
    text = terminal_table(frame)
    rows = [line.split()[0] for line in text.splitlines() if "[" in line and "]" in line]
    assert rows[:3] == ["Base", "GRPO", "N-GRPO"]
    for words in (
        "Mean@32",
        "Pass@16",
        "Pass@32",
        "12 problems × 32 samples",
        "95 %",
        "unbiased",
        "proves the pipeline",
    ):
        assert words in text
    mean = cell(own_values(frame), "N-GRPO", "Mean@32", "mean")
    shown = f"{100 * mean['value']:.1f} [{100 * mean['problems_low']:.1f}, {100 * mean['problems_high']:.1f}]"
    assert shown in text


def test_paper_scale_carries_no_warning(tmp_path: Path) -> None:
    study = make_study(tmp_path, "paper", problems=3)
    assert "proves" not in terminal_table(table_frame("main", study, Results(tmp_path / "paper")))


def test_an_unknown_table_is_a_users_mistake_and_leaves_nothing(toy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no table 'mian'"):
        analyze("mian", *toy, tmp_path / "mian.parquet")
    assert not (tmp_path / "mian.parquet").exists()


def test_a_table_reads_back_as_written(toy, tmp_path: Path) -> None:
    study, results = toy
    analyze("main", study, results, tmp_path / "main.parquet")
    frame = table_frame("main", study, results)
    read = read_table(tmp_path / "main.parquet")
    assert list(read.columns) == list(frame.columns)
    np.testing.assert_array_equal(read["value"], frame["value"])
