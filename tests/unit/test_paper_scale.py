"""The page of a whole study at the paper's scale (three seeds, every table and model), as a real one would have it."""

import re
from pathlib import Path

import pytest
import test_report
from page_numbers import Said, differing, repeated, said_on_page, said_on_problem_pages
from synthetic_study import make_study

from ngrpo.claims.verdicts import judge_claims
from ngrpo.report.page import report
from ngrpo.report.tables import analyze
from ngrpo.study.layout import Results

LARGEST, LARGEST_TOY = 5_000_000, 1_000_000
"""Bytes of a page that opens at once and can be sent by mail."""


def finished(folder: Path, scale: str, seeds: int) -> tuple:
    """A study of all tables that `all` makes with so many training seeds, its results and its page."""
    study, results = make_study(folder, scale, problems=6, tables=None, seeds=seeds), Results(folder / scale)
    for table in study.wanted("all"):
        analyze(table, study, results, results.table(table), results.exploration(table), results.excerpts(table))
    report(study, results, results.report.page)
    return study, results, test_report.Page(results.report.page.read_text())


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Every table of the paper."""
    return finished(tmp_path_factory.mktemp("paper"), "paper", 3)


def test_it_is_the_whole_study_and_its_page_is_small(paper, tmp_path: Path) -> None:
    study, results, _ = paper
    assert (len(study.runs), len(study.evaluations)) == (81, 321)
    assert results.report.page.stat().st_size <= LARGEST
    _, toy, _ = finished(tmp_path, "toy", 2)  # of each table: more runs than the toy has, with three of its main table
    assert toy.report.page.stat().st_size <= LARGEST_TOY


def test_the_first_screen_answers(paper) -> None:
    study, results, _ = paper
    html = results.report.page.read_text()
    top = html[: html.index("<main>")]
    judged = [claim for claim in judge_claims(study, results) if any(part.unit == "points" for part in claim.parts)]
    assert len(judged) > 40
    for claim in judged:
        assert top.count(f'href="#claim-{claim.id.replace(".", "-")}"') == 1
    assert "Not to be trusted" not in top
    assert "isn’t complete" not in top
    assert "no verdict" not in top
    assert top.index("answer-sentence") < top.index('class="facts"')


def test_every_id_is_one_elements_and_every_link_leads_somewhere(paper) -> None:
    test_report.test_the_page_needs_nothing_from_outside(paper)
    test_report.test_ids_are_unique_and_every_anchor_and_file_link_resolves(paper)


def test_all_repetitions_of_a_number_are_equal(paper) -> None:
    study, results, _ = paper
    html = results.report.page.read_text()
    said = [*said_on_page(html), *said_on_problem_pages(study, results.report.problems)]
    assert differing(said) == []
    assert len(said) > 10_000
    places = {"lead sentence", "forest plot", "claims table", "results table", "figure", "problems"}
    assert repeated(said)["value"] >= places
    some = next(one for one in said if one.part == "p" and re.search(r"\d", one.text))
    assert differing([*said, Said(some.quantity, "p", "0.777", "elsewhere")])  # the negative control
