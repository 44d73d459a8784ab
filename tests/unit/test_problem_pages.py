"""Pages of what numbers were computed from: all of it is there, its links resolve, foreign text is text."""

from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import HOSTILE_ANSWER, make_study
from test_report import Page

from ngrpo.claims.evidence import Reader
from ngrpo.report import excerpts
from ngrpo.report.excerpts import FIRST, LAST, read_excerpts, shortened, write_excerpts
from ngrpo.report.page import write_problems
from ngrpo.report.section_problems import page_of
from ngrpo.study.layout import Results

MIXED = "ngrpo-toy/standard/toy-held-out"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """A toy study with its pages of problems; tests only read them."""
    folder = tmp_path_factory.mktemp("study")
    made, results = make_study(folder, problems=6), Results(folder / "toy")
    asked = pd.DataFrame([{"id": f"toy-held-out-{i:04d}", "problem": f"{i} < 7?"} for i in range(6)])
    asked.to_parquet(results.dataset("toy-held-out").problems, index=False)
    write_excerpts("main", made, results, results.excerpts("main"))
    write_problems(made, Reader(made, results), results.report)
    return made, results


def test_every_evaluation_and_diagnosed_model_has_its_page_and_all_links_resolve(study) -> None:
    made, results = study
    wanted = {page_of(name) for name in (*made.evaluations, *(f"mixing-{run}" for run in made.mixing_runs))}
    (results.report.page).touch()
    pages = {path.name: Page(path.read_text()) for path in results.report.problems.iterdir()}
    assert set(pages) == wanted
    for page in pages.values():
        ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
        for link in (attrs["href"] for attrs in page.all("a")):
            there = link[1:] in ids if link.startswith("#") else (results.report.problems / link).exists()
            assert there, link
        assert not page.all("script")


def test_a_problem_has_its_counts_its_answers_and_a_right_and_a_wrong_response(study) -> None:
    _, results = study
    html = (results.report.problems / page_of(MIXED)).read_text()
    words = Page(html).words()
    grades = pd.read_parquet(results.evaluation(MIXED).grades)
    for name, part in grades.groupby("problem_id"):
        right = (part["grade"] == "correct").sum()
        assert f"{name} responses {right} of 32" in words
    samples = pd.read_parquet(results.evaluation(MIXED).samples)
    chosen = read_excerpts(results.excerpts("main"))
    chosen = chosen[chosen["evaluation"] == MIXED]
    both = chosen.merge(grades, on=["problem_id", "sample"])
    assert both.groupby(["problem_id", both["grade"] == "correct"]).size().max() == 1
    assert set(both["grade"] == "correct") == {True, False}
    texts = samples.set_index(["problem_id", "sample"])["text"]
    for row in chosen.itertuples():
        assert row.text == texts[row.problem_id, row.sample]
        assert row.text in words
    assert "3 < 7?" in words
    assert HOSTILE_ANSWER not in html
    assert "<script" not in html


def test_a_mixed_step_is_marked_and_leads_to_its_candidates_and_weights(study) -> None:
    made, results = study
    html = (results.report.problems / page_of(f"mixing-{made.mixing_runs[0]}")).read_text()
    assert 'a<a class="mixed" href="#e1s1">c0</a>d' in html
    assert "token 1: 0.7500 · c0 + 0.2500 · c1 (cosine 0.9700)" in Page(html).words()


def test_without_excerpts_a_page_still_has_every_problem(study) -> None:
    made, results = study
    results.excerpts("main").rename(results.excerpts("aside"))
    try:
        write_problems(made, Reader(made, results), results.report)
        words = Page((results.report.problems / page_of(MIXED)).read_text()).words()
    finally:
        results.excerpts("aside").rename(results.excerpts("main"))
        write_problems(made, Reader(made, results), results.report)
    assert "toy-held-out-0005" in words
    assert "Responses" not in words


def test_long_texts_are_cut_in_their_middle_and_few_problems_are_kept(study, tmp_path: Path, monkeypatch) -> None:
    text = "a" * FIRST + "b" * 5000 + "c" * LAST
    assert shortened(text) == "a" * FIRST + "\n[… 5,000 characters …]\n" + "c" * LAST
    assert shortened("short") == "short"
    monkeypatch.setattr(excerpts, "PROBLEMS", 2)
    write_excerpts("main", *study, tmp_path / "few.parquet")
    chosen = read_excerpts(tmp_path / "few.parquet")
    assert set(chosen["problem_id"]) == {"toy-held-out-0000", "toy-held-out-0005"}
