"""From a number to what it was computed from: a page an evaluation (its problems, their answers, some responses), and a
page a base model with what was fed at each mixed step."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ngrpo.audit.status import read_grades
from ngrpo.foreign import read_parquet
from ngrpo.report.diagnostics import RunDiagnostics, read_diagnostics, shown
from ngrpo.report.excerpts import read_excerpts
from ngrpo.report.exploration import ANSWERS
from ngrpo.report.names import place_title, title_of
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.products import Cell

MOST_ANSWERS = 4
"""Different answers of a problem that its line has; how many more there are is said."""
LONGEST_ANSWER = 60


def page_of(name: str) -> str:
    """The file of an evaluation's or a diagnosed run's page, in the folder of problems."""
    return f"{re.sub(r'[^a-z0-9.-]+', '--', name.lower())}.html"


def problem_pages(study: Study, results: Results) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file, what its template shows) of every evaluation of the tables that is graded."""
    cells: dict[str, Cell] = {}
    for cell in (cell for name in study.size.tables for cell in study.cells[name]):
        cells.setdefault(cell.evaluation, cell)
    paths = [path for name in study.size.tables if (path := results.excerpts(name)).exists()]
    frames = [read_excerpts(path) for path in paths]
    excerpts = pd.concat(frames).drop_duplicates(["evaluation", "problem_id", "sample"]) if frames else pd.DataFrame()
    texts = dict(list(excerpts.groupby("evaluation"))) if len(excerpts) else {}
    for evaluation, cell in cells.items():
        if read_grades(study, results, evaluation).frame is not None:
            shown_page = _page(study, results, cell, texts.get(evaluation, pd.DataFrame()))
            yield page_of(evaluation), {"evaluation": evaluation, **shown_page}


def _page(study: Study, results: Results, cell: Cell, texts: pd.DataFrame) -> dict[str, Any]:
    grades = read_parquet(results.evaluation(cell.evaluation).grades, ANSWERS).to_pandas()
    grades["problem_id"] = grades["problem_id"].astype(str)
    by_problem = dict(list(texts.groupby("problem_id"))) if len(texts) else {}
    problems = [_problem(name, part, by_problem.get(name)) for name, part in grades.groupby("problem_id", sort=True)]
    title = f"{cell.label}: {place_title(study, cell.model, cell.benchmark)}"
    return {"title": title, "problems": problems, "samples": study.evaluations[cell.evaluation].samples}


def _problem(name: str, grades: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, Any]:
    """One problem's line, and the responses that were kept of it."""
    right = grades["grade"] == "correct"
    wrong = Counter(answer[:LONGEST_ANSWER] for answer in grades.loc[~right, "extracted"].dropna().astype(str))
    problem = {"id": name, "right": int(right.sum()), "wrong": wrong.most_common(MOST_ANSWERS)}
    problem |= {"more": max(0, len(wrong) - MOST_ANSWERS), "silent": int((~right).sum() - wrong.total())}
    if texts is None:
        return {**problem, "text": "", "responses": []}
    graded = grades.set_index("sample")
    responses = [
        {**row, "grade": graded.loc[row["sample"], "grade"], "answer": graded.loc[row["sample"], "extracted"] or ""}
        for row in texts.to_dict("records")
        if row["sample"] in graded.index
    ]
    return {**problem, "text": texts["problem"].iloc[0], "responses": responses}


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
