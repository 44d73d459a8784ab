"""The page's second opinion: where the two graders disagree, and by how much that moves each table.

Grades hold both graders' verdicts (ngrpo.grading.graded_files). Where grades are older than the second grader, that is
said, with the command that grades again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.audit.status import command
from ngrpo.claims.evidence import Reader
from ngrpo.formatting import points
from ngrpo.grades import displayed
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.titles import title_of
from ngrpo.terminal import printable

MOST_SHOWN = 100
MOST_CHARS = 200


@dataclass(frozen=True)
class Disagreement:
    """One answer on whose being right the graders disagree, and how many samples gave it."""

    benchmark: str
    problem_id: str
    problem: str
    reference: str
    answer: str
    first: str
    second: str
    samples: int


@dataclass(frozen=True)
class SecondOpinion:
    """What the second grader says of a study's evaluations.

    answers: how many both graded. differ: on how many they disagree. shown: those, equal ones once, the most frequent
    first, at most MOST_SHOWN of `kinds`. effects: a sentence for each table.
    """

    answers: int
    differ: int
    kinds: int
    shown: list[Disagreement]
    effects: dict[str, str]


def second_opinion(study: Study, results: Results, reader: Reader | None = None) -> SecondOpinion:
    """The second grader's verdicts beside the first's, over all evaluations of the tables."""
    names = dict.fromkeys(c.evaluation for name in study.size.tables for c in study.cells[name])
    reader = reader or Reader(study, results)
    known = {name: reader.grades(name).frame for name in names}
    frames = {name: frame for name, frame in known.items() if frame is not None}
    both = {name: frame for name, frame in frames.items() if "second_grade" in frame}
    moved = {name: _means(frame)[1] - _means(frame)[0] for name, frame in both.items()}
    differing = [_differing(study, name, frame) for name, frame in both.items()]
    groups = _grouped(study, results, pd.concat(differing)) if any(map(len, differing)) else []
    return SecondOpinion(
        sum(len(frame) for frame in both.values()),
        sum(map(len, differing)),
        len(groups),
        groups[:MOST_SHOWN],
        {name: _effect(study, results, name, frames, moved) for name in study.size.tables},
    )


def _right(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return frame["grade"] == "correct", frame["second_grade"] == "correct"


def _means(frame: pd.DataFrame) -> tuple[float, float]:
    """Mean@n by each grader; every problem has n samples."""
    first, second = _right(frame)
    return float(first.mean()), float(second.mean())


def _differing(study: Study, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    first, second = _right(frame)
    columns = ["problem_id", "grade", "extracted", "second_grade", "second_extracted"]
    return frame.loc[first != second, columns].assign(benchmark=study.evaluations[name].benchmark.id)


def _grouped(study: Study, results: Results, counted: pd.DataFrame) -> list[Disagreement]:
    """Equal disagreements once, the most frequent first."""
    counted = counted.assign(answer=counted["extracted"].fillna(counted["second_extracted"]).fillna(""))
    keys = ["benchmark", "problem_id", "answer", "grade", "second_grade"]
    sizes = counted.groupby(keys, sort=True).size().sort_values(ascending=False, kind="stable")
    texts = {b: _problem_texts(results.dataset(b).problems) for b in counted["benchmark"].unique()}
    rows = []
    for (benchmark, problem, answer, first, second), samples in sizes.items():
        text, reference = texts[benchmark].get(problem, ("", ""))
        shown = (printable(part, MOST_CHARS) for part in (problem, text, reference, answer))
        name = title_of(study, "benchmark", benchmark)
        rows.append(Disagreement(name, *shown, displayed(first), displayed(second), int(samples)))
    return rows


def _problem_texts(path: Path) -> Mapping[str, tuple[str, str]]:
    """Each problem's text and reference by its id; empty where the problems aren't there (they aren't in a crate)."""
    try:
        columns = pq.read_table(path, columns=["id", "problem", "answer"]).to_pydict()
    except (OSError, pa.ArrowException):
        return {}
    return {
        str(name): (str(text), str(answer))
        for name, text, answer in zip(columns["id"], columns["problem"], columns["answer"], strict=True)
    }


def _effect(study: Study, results: Results, table: str, frames: Iterable[str], moved: Mapping[str, float]) -> str:
    """By how much the choice of the grader moves a table's Mean@n, in one sentence; empty without grades."""
    cells = [cell for cell in study.cells[table] if cell.evaluation in frames]
    lost = next((cell for cell in cells if cell.evaluation not in moved), None)
    if lost is not None:
        make = command(study, results, results.evaluation(lost.evaluation).grades)
        return f"The second grader hasn’t graded all of this table; graded again by: {make} --force"
    if not cells:
        return ""
    most = max(cells, key=lambda cell: abs(moved[cell.evaluation]))
    if not moved[most.evaluation]:
        return "The second grader gives every number of this table the same Mean@n."
    low, high = (points(end(moved[cell.evaluation] for cell in cells), 2) for end in (min, max))
    where = f"{most.label} on {title_of(study, 'benchmark', most.benchmark)}"
    return (
        f"With the second grader instead, this table’s Mean@n would move by {low}"
        f"{f' to {high}' if low != high else ''} points, the most for {where} ({points(moved[most.evaluation], 2)})."
    )
