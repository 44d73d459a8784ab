"""From a number to what it was computed from: a page an evaluation (its problems, their answers, some responses), and a
page a base model with what was fed at each mixed step."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from ngrpo.claims.evidence import Reader
from ngrpo.foreign import read_parquet
from ngrpo.report.diagnostics import RunDiagnostics, read_diagnostics, shown
from ngrpo.report.excerpts import read_excerpts
from ngrpo.report.exploration import ANSWERS
from ngrpo.report.names import place_title
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.products import Cell
from ngrpo.study.titles import title_of

MOST_ANSWERS = 4
"""Different answers of a problem that its line has; how many more there are is said."""
LONGEST_ANSWER = 60


def page_of(name: str) -> str:
    """The file of an evaluation's or a diagnosed run's page, in the folder of problems."""
    return f"{re.sub(r'[^a-z0-9.-]+', '--', name.lower())}.html"


def problem_pages(study: Study, reader: Reader) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, what its template shows) of every evaluation of the tables that is graded."""
    results, cells = reader.results, dict[str, Cell]()
    for cell in (cell for name in study.size.tables for cell in study.cells[name]):
        cells.setdefault(cell.evaluation, cell)
    paths = [path for name in study.size.tables if (path := results.excerpts(name)).exists()]
    frames = [read_excerpts(path) for path in paths]
    excerpts = pd.concat(frames).drop_duplicates(["evaluation", "problem_id", "sample"]) if frames else pd.DataFrame()
    texts = dict(list(excerpts.groupby("evaluation"))) if len(excerpts) else {}
    for evaluation, cell in cells.items():
        if reader.grades(evaluation).frame is not None:
            shown_page = _page(study, results, cell, texts.get(evaluation, pd.DataFrame()))
            yield page_of(evaluation), {"evaluation": evaluation, **shown_page}


def _page(study: Study, results: Results, cell: Cell, texts: pd.DataFrame) -> dict[str, Any]:
    grades = read_parquet(results.evaluation(cell.evaluation).grades, ANSWERS, exact=True).to_pydict()
    answers: dict[str, list[_Answer]] = {}
    for name, sample, grade, extracted in zip(
        *(grades[key] for key in ("problem_id", "sample", "grade", "extracted")), strict=True
    ):
        answers.setdefault(name, []).append(_Answer(sample, grade, extracted))
    excerpts: dict[str, list[dict[str, Any]]] = {}
    for row in texts.to_dict("records"):
        excerpts.setdefault(str(row["problem_id"]), []).append(row)
    problems = [_problem(name, answers[name], excerpts.get(name, [])) for name in sorted(answers)]
    title = f"{cell.label}: {place_title(study, cell.model, cell.benchmark)}"
    return {"title": title, "problems": problems, "samples": study.evaluations[cell.evaluation].samples}


class _Answer(NamedTuple):
    """A sample's grade, and the answer that was read from it."""

    sample: int
    grade: str
    extracted: str | None


def _problem(name: str, answers: list[_Answer], excerpts: list[dict[str, Any]]) -> dict[str, Any]:
    """One problem's line, and the responses that were kept of it."""
    not_right = [answer.extracted for answer in answers if answer.grade != "correct"]
    wrong = Counter(extracted[:LONGEST_ANSWER] for extracted in not_right if extracted is not None)
    problem = {"id": name, "right": len(answers) - len(not_right), "wrong": wrong.most_common(MOST_ANSWERS)}
    problem |= {"more": max(0, len(wrong) - MOST_ANSWERS), "silent": len(not_right) - wrong.total()}
    graded = {answer.sample: answer for answer in answers}
    responses = [
        {**row, "grade": graded[row["sample"]].grade, "answer": graded[row["sample"]].extracted or ""}
        for row in excerpts
        if row["sample"] in graded
    ]
    return {**problem, "text": excerpts[0]["problem"] if excerpts else "", "responses": responses}


def mixing_pages(study: Study, results: Results) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, what its template shows) of every base model's diagnostics: responses with their mixed steps marked."""
    for one in read_diagnostics(study, results):
        if one.data:
            yield page_of(f"mixing-{one.run}"), _mixing_page(study, one, one.data)


def _mixing_page(study: Study, one: RunDiagnostics, data: dict[str, Any]) -> dict[str, Any]:
    title = f"What was fed: {title_of(study, 'model', study.runs[one.run].model.id)}"
    return {"title": title, "run": one.run, "file": one.file, "examples": [_example(e) for e in data["examples"]]}


def _example(example: dict[str, Any]) -> dict[str, Any]:
    """A response as (token, its mixed step or None), and its mixed steps with candidates and weights."""
    steps = {step["index"]: step for step in example["steps"]}
    mixed = [(token, at if at in steps else None) for at, token in enumerate(example["mixed"])]
    listed = [
        {"at": at, "cosine": step["cosine"], "parts": [(shown(token), weight) for token, weight in step["candidates"]]}
        for at, step in sorted(steps.items())
    ]
    return {"id": example["problem_id"], "problem": example["problem"], "without": "".join(example["without"]),
            "mixed": mixed, "steps": listed, "apart": example["apart"]}  # fmt: skip
