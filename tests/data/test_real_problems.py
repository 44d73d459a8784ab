"""Real problems, from a folder of the user's: they load, filter, render and grade (`make test-data DATA=PATH`).

The folder holds aime24.jsonl (30 rows), amc23.jsonl (40), math500_first400.jsonl (400 rows of MATH500) and
train_sample_975.jsonl. Nothing of it belongs to the project.
"""

import itertools
import json
import os
from pathlib import Path

import pytest

from ngrpo.data.datasets import make_dataset, read_problems
from ngrpo.grading.grader import Item, grade_answers
from ngrpo.study.expand import load_study
from ngrpo.study.sources import Dataset, Fields, FolderDataset
from ngrpo.study.specs import DatasetSpec

CONFIG = Path(__file__).resolve().parents[2] / "config"
MATH = DatasetSpec(
    id="math500",
    dataset=Dataset(
        source=FolderDataset(kind="folder", file="math500_first400.jsonl"),
        fields=Fields(solution="solution", id="unique_id"),
        rows=400,
        instruction=load_study(CONFIG, "smoke").datasets["aime24"].dataset.instruction,
    ),
)
SIZES = {"aime24": 30, "amc23": 40, "math500": 400, "train-sample": 975}
# Reference solutions that don't state their answer as asked for, each looked at: no box; a box that ends with a full
# stop; a box of bold text in brackets.
EXCEPTIONS = {"aime24": {"60": "no_answer", "70": "wrong", "75": "wrong"}}


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """Every data set's problems, as the data stage writes them."""
    folder = os.environ.get("NGRPO_REAL_DATA")
    if not folder:
        pytest.exit("these tests need real problems: make test-data DATA=PATH", returncode=3)
    out = tmp_path_factory.mktemp("data")
    specs = {**load_study(CONFIG, "smoke").datasets, "math500": MATH}
    for name in SIZES:
        make_dataset(specs[name], out / f"{name}.parquet", data_folder=Path(folder))
    return {name: read_problems(out / f"{name}.parquet") for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_every_row_loads_with_problem_and_answer(problems, name: str) -> None:
    rows = problems[name]
    assert len(rows) == SIZES[name]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["problem"].strip() and row["answer"].strip() for row in rows)


@pytest.mark.parametrize("name", ["aime24", "amc23", "math500"])
def test_every_reference_answer_is_correct_against_itself_and_wrong_against_the_next(problems, name: str) -> None:
    rows = problems[name]
    items = [Item(row["id"], rf"so it is \boxed{{{row['answer']}}}.", row["answer"]) for row in rows]
    assert {g.grade for g in grade_answers(items, 2)} == {"correct"}
    others = [Item(a["id"], rf"\boxed{{{a['answer']}}}", b["answer"]) for a, b in itertools.pairwise(rows)]
    graded = grade_answers(others, 2)
    equal = sum(g.grade == "correct" for g in graded)
    assert equal < len(rows) / 10  # neighbors with the same answer
    assert {g.grade for g in graded} <= {"correct", "wrong"}


@pytest.mark.parametrize("name", ["aime24", "math500"])
def test_every_reference_solution_is_correct_but_for_named_exceptions(problems, name: str) -> None:
    rows = [row for row in problems[name] if row["solution"]]
    assert len(rows) == SIZES[name]
    graded = grade_answers([Item(row["id"], row["solution"], row["answer"]) for row in rows], 2)
    off = {row["id"]: g.grade for row, g in zip(rows, graded, strict=True) if g.grade != "correct"}
    assert off == EXCEPTIONS.get(name, {}), json.dumps(off)
