"""What is finished, as text for the terminal: a table, one problem's samples, how two evaluations differ.

Raises UserError, with the command that makes it, for what isn't there yet.
"""

from pathlib import Path

import pandas as pd

from ngrpo.errors import UserError, unknown_name
from ngrpo.report.inspection import diff, show
from ngrpo.report.tables import terminal_table
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results


def table_text(results: Results, table: str) -> str:
    """A table's numbers, and where the report is."""
    numbers = pd.read_parquet(_there(results.table(table), f"table '{table}' isn't computed yet"))
    page = results.report.page
    where = page.resolve() if page.exists() else f"not written yet; snakemake --cores 2 {page}"
    return f"{terminal_table(numbers)}\n\nReport: {where}"


def problem_text(study: Study, results: Results, evaluation: str, problem: str) -> str:
    """A problem of an evaluation: all its samples, answers and grades."""
    return show(problem, *_frames(study, results, evaluation))


def difference_text(study: Study, results: Results, first: str, second: str) -> str:
    """Which problems of one benchmark flipped between two evaluations."""
    problems, _, one = _frames(study, results, first)
    _, _, other = _frames(study, results, second)
    return diff(one, other, (first, second), problems)


def _frames(study: Study, results: Results, name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Problems, samples and grades of an evaluation."""
    if name not in study.evaluations:
        raise unknown_name("evaluation", name, study.evaluations, where=f"scale {study.scale}")
    files = results.evaluation(name)
    problems = results.dataset(study.evaluations[name].benchmark.id).problems
    there = [_there(path, "this evaluation isn't finished") for path in (problems, files.samples, files.grades)]
    asked, samples, grades = (pd.read_parquet(path) for path in there)
    return asked, samples, grades


def _there(path: Path, what: str) -> Path:
    if not path.exists():
        raise UserError(what, where=path, do=f"snakemake --cores 2 {path}")
    return path
