"""A table beside the paper's values: one source for HTML, LaTeX and CSV; nothing filled in."""

import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import make_study

from ngrpo.formatting import percent
from ngrpo.report.paper_tables import as_html, as_latex, beside, write_tables
from ngrpo.report.tables import table_frame
from ngrpo.study.layout import ReportFiles, Results
from ngrpo.study.paper_values import read_paper_values

MODEL = "r1-qwen-1.5b"


def sheet_of(study, results: Results) -> pd.DataFrame:
    return beside(table_frame("main", study, results), study, results, read_paper_values(study.folder))


@pytest.fixture
def paper(tmp_path: Path):
    return make_study(tmp_path, "paper", problems=5), Results(tmp_path / "paper")


def row(sheet: pd.DataFrame, **key) -> pd.Series:
    rows = sheet
    for name, value in key.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_each_value_stands_beside_the_papers_and_the_table_that_prints_it(paper) -> None:
    study, results = paper
    frame, sheet = table_frame("main", study, results), sheet_of(study, results)
    assert len(sheet) == 3 * 4 * 3  # systems, benchmarks and their average, metrics
    one = row(sheet, benchmark="aime25", metric="Pass@32", label="N-GRPO")
    assert (one["paper"], one["paper_table"]) == (pytest.approx(0.5028), "table1")
    own = frame[frame["against"].isna() & (frame["benchmark"] == "aime25") & (frame["label"] == "N-GRPO")]
    by = own[own["metric"] == "Pass@32"].set_index("estimator")
    assert one["ours"] == by.loc["bootstrap", "value"]
    assert one["unbiased"] == by.loc["unbiased", "value"]
    assert (one["low"], one["high"]) == tuple(by.loc["bootstrap", ["problems_low", "problems_high"]])
    assert one["difference"] == pytest.approx(one["ours"] - one["paper"])
    assert (one["n"], one["seeds"]) == (32, 1)
    mean = row(sheet, benchmark="Avg", metric="Mean@32", label="GRPO")
    assert mean["paper"] == pytest.approx(0.5362)
    assert pd.isna(mean["unbiased"])


def test_best_and_second_are_of_each_block_for_us_and_for_the_paper(paper) -> None:
    sheet = sheet_of(*paper)
    for _, block in sheet.groupby(["model", "benchmark", "metric"]):
        assert block.loc[block["ours"].idxmax(), "rank"] == 1
        shown = block["ours"].map(percent)
        assert block.loc[block["ours"].idxmin(), "rank"] != 1 or shown.nunique() == 1
        assert block.groupby(shown)["rank"].nunique().max() == 1  # what is shown alike is ranked alike
        assert shown[block["rank"] == 1].nunique() == 1
    printed = sheet[(sheet["benchmark"] == "aime25") & (sheet["metric"] == "Mean@32")].set_index("label")
    assert dict(printed["paper_rank"]) == {"Base": 3, "GRPO": 2, "N-GRPO": 1}


def test_the_three_files_hold_the_same_numbers(paper, tmp_path: Path) -> None:
    study, results = paper
    sheet = sheet_of(study, results)
    beside_page = ReportFiles(tmp_path)
    write_tables(sheet, study, beside_page)
    html, tex = (beside_page.table("main", kind).read_text() for kind in ("html", "tex"))
    csv = pd.read_csv(beside_page.table("main", "csv"))
    assert list(csv.columns) == list(sheet.columns)
    assert csv["ours"].to_numpy() == pytest.approx(sheet["ours"].to_numpy())
    for _, one in sheet.iterrows():
        value = f"{100 * one['ours']:.2f}"
        assert value in html
        assert value in tex
    bold = set(re.findall(r"\\textbf\{([\d.]+)\}", tex))
    best = [*sheet.loc[sheet["rank"] == 1, "ours"], *sheet.loc[sheet["paper_rank"] == 1, "paper"]]
    assert bold == {f"{100 * value:.2f}" for value in best}
    assert set(re.findall(r"font-weight: bold;\"[^>]*>([\d.]+)<", html)) == bold
    assert not re.search("[⟪⟫⟨⟩]", tex + html)
    assert tex.count("{") == tex.count("}")


def test_a_cell_without_data_says_so_in_its_place(paper, tmp_path: Path) -> None:
    study, results = paper
    gone = results.evaluation(f"grpo-{MODEL}/standard/amc23").grades
    gone.unlink()
    sheet = sheet_of(study, results)
    lost = sheet[sheet["status"] == "missing"]
    assert set(zip(lost["label"], lost["benchmark"], strict=True)) == {("GRPO", "amc23"), ("GRPO", "Avg")}
    assert lost[["ours", "low", "high", "difference", "unbiased"]].isna().all().all()
    assert lost["paper"].notna().all()
    assert f"snakemake --profile slurm {gone}" in lost["note"].iloc[0]
    for text in (as_html(sheet, study), as_latex(sheet, study)):
        assert "missing" in text
        assert "snakemake --profile slurm" in text.replace("{-}", "-")


def test_further_seeds_stand_beside_the_first_and_a_missing_one_isnt_counted(tmp_path: Path) -> None:
    study, results = make_study(tmp_path, "paper", problems=4, seeds=3), Results(tmp_path / "paper")
    sheet = sheet_of(study, results)
    at = {"benchmark": "amc23", "metric": "Mean@32"}
    one, base = row(sheet, label="GRPO", **at), row(sheet, label="Base", **at)
    files = [results.evaluation(f"grpo-{MODEL}{seed}/standard/amc23").grades for seed in ("", "-seed2", "-seed3")]
    shares = [(pd.read_parquet(file)["grade"] == "correct").mean() for file in files]
    assert one["ours"] == pytest.approx(shares[0])
    assert one["seeds"] == 3
    assert (one["over_seeds"], one["least"], one["most"]) == pytest.approx((sum(shares) / 3, min(shares), max(shares)))
    assert base["seeds"] == 1
    assert pd.isna(base["over_seeds"])
    assert f"{100 * one['over_seeds']:.2f} ({100 * one['least']:.1f} to" in as_html(sheet, study)
    files[1].unlink()
    fewer = sheet_of(study, results)
    assert row(fewer, label="GRPO", **at)["seeds"] == 2
    assert row(fewer, label="GRPO", benchmark="Avg", metric="Mean@32")["seeds"] == 2
    assert row(fewer, label="N-GRPO", **at)["seeds"] == 3


def test_another_number_of_problems_than_the_papers_is_noted(paper) -> None:
    sheet = sheet_of(*paper)
    assert "5 problems, the paper has 30" in row(sheet, benchmark="aime25", metric="Mean@32", label="Base")["note"]
    assert row(sheet, benchmark="Avg", metric="Mean@32", label="Base")["note"] == ""


def test_a_model_that_the_paper_hasnt_gets_no_paper_value(tmp_path: Path) -> None:
    study = make_study(tmp_path, problems=4)
    sheet = sheet_of(study, Results(tmp_path / "toy"))
    assert sheet[["paper", "paper_table", "difference"]].isna().all().all()
    assert sheet["rank"].notna().all()
    for text in (as_html(sheet, study), as_latex(sheet, study)):
        assert "proves the pipeline, not the paper" in text
