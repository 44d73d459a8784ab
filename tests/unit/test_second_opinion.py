"""The second grader on the report: disagreements are listed, no answer controls the page, old grades say so."""

import re
from html import unescape

import pandas as pd
from synthetic_study import HOSTILE_ANSWER, make_study
from unwritten import page_html

from ngrpo.formatting import points
from ngrpo.report.section_graders import second_opinion
from ngrpo.report.tables import analyze
from ngrpo.study.layout import Results


def test_disagreements_of_the_graders_are_listed_and_each_table_says_what_they_move(tmp_path):
    study = make_study(tmp_path, problems=6)
    results = Results(tmp_path / "toy")
    analyze("main", study, results, results.table("main"))
    opinion = second_opinion(study, results)
    assert opinion.differ == sum(row.samples for row in opinion.shown) == 6
    assert {(row.first, row.second) for row in opinion.shown} == {("wrong", "correct")}
    cells = {cell.evaluation for cell in study.cells["main"]}
    moved = [2 / len(pd.read_parquet(results.evaluation(cell).grades)) for cell in cells]
    assert points(max(moved), 2) in opinion.effects["main"]
    html = page_html(study, results)
    words = " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())
    assert "They disagree on 6 of" in words
    assert opinion.effects["main"] in words
    assert HOSTILE_ANSWER.replace("\x1b", "\\x1b") in words
    assert "<script>alert" not in html
    assert "\x1b" not in html


def test_grades_from_before_the_second_grader_are_said_to_be_so(tmp_path):
    study = make_study(tmp_path, problems=2)
    results = Results(tmp_path / "toy")
    for cell in study.cells["main"]:
        path = results.evaluation(cell.evaluation).grades
        frame = pd.read_parquet(path)
        frame[["problem_id", "sample", "grade", "extracted", "reason", "spec"]].to_parquet(path, index=False)
    opinion = second_opinion(study, results)
    assert (opinion.answers, opinion.shown) == (0, [])
    assert "hasn’t graded all of this table; graded again by: snakemake --cores 2 " in opinion.effects["main"]
