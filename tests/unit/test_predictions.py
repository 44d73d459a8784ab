"""Predictions as an evaluation's samples: which rows are taken, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ngrpo.data.datasets import make_dataset
from ngrpo.errors import UserError
from ngrpo.files import file_sha256, read_json
from ngrpo.grading import grade_samples
from ngrpo.stages.predictions import take_predictions
from ngrpo.study.cards import SamplesCard
from ngrpo.study.sources import Dataset, ToyProblems
from ngrpo.study.specs import DatasetSpec, PredictedSpec, PredictionsSpec

BENCHMARK = DatasetSpec(
    id="sums", dataset=Dataset(source=ToyProblems(kind="toy", count=3, held_out=True, seed=1), instruction="")
)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sums.parquet"
    make_dataset(BENCHMARK, path, data_folder=None)
    return path


@pytest.fixture
def rows(problems: Path) -> list[dict[str, Any]]:
    """Two samples of each problem: a right one and a wrong one."""
    known = pq.read_table(problems).to_pylist()
    return [
        {"problem_id": row["id"], "sample": number, "response": f"\\boxed{{{row['answer'] if number == 0 else 'x'}}}"}
        for row in known
        for number in (0, 1)
    ]


def take(rows: list[Any], problems: Path, folder: Path, samples: int = 2, **dataset: Any) -> Path:
    source, out = folder / "theirs.jsonl", folder / "sums.samples.parquet"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = BENCHMARK.model_copy(update={"dataset": BENCHMARK.dataset.model_copy(update=dataset)})
    spec = PredictedSpec(
        scale="toy",
        policy=PredictionsSpec(id="theirs", sha256=file_sha256(source)),
        benchmark=benchmark,
        samples=samples,
    )
    take_predictions(spec, out, source=source, problems=problems)
    return out


def test_predictions_are_graded_as_all_samples_are(rows: list[Any], problems: Path, tmp_path: Path) -> None:
    out = take(rows, problems, tmp_path)
    card: SamplesCard = read_json(out.with_suffix(".card.json"), SamplesCard)
    assert (card["problems"], card["sampled"], card["samples"]) == (3, 3, 6)
    counts = grade_samples(out, problems, tmp_path / "grades.parquet", 1)
    assert counts == {"correct": 3, "wrong": 3}


def test_any_order_gives_the_same_samples(rows: list[Any], problems: Path, tmp_path: Path) -> None:
    first = pq.read_table(take(rows, problems, tmp_path)).drop_columns("spec")
    assert pq.read_table(take(rows[::-1], problems, tmp_path)).drop_columns("spec") == first
    # rows without a number are counted as they stand
    plain = [{"id": row["problem_id"], "response": row["response"]} for row in rows]
    assert pq.read_table(take(plain, problems, tmp_path)).drop_columns("spec") == first
    assert pq.read_table(take(plain[::-1], problems, tmp_path)).drop_columns("spec") != first


def test_the_first_n_samples_of_the_problems_that_are_asked_count(
    rows: list[Any], problems: Path, tmp_path: Path
) -> None:
    table = pq.read_table(take(rows, problems, tmp_path, samples=1, limit=2)).to_pylist()
    assert [(row["problem_id"], row["sample"]) for row in table] == [
        (rows[0]["problem_id"], 0),
        (rows[2]["problem_id"], 0),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"has 1 samples here, and\s+2 are compared \(the first that is missing: 1\)"),
        (lambda rows: [*rows, rows[0]], "sample 0 of problem '.*' is there twice"),
        (lambda rows: [*rows, {**rows[0], "problem_id": "nobody"}], "no problem 'nobody'"),
        (lambda rows: [*rows, {"problem_id": rows[0]["problem_id"]}], "'response' must be a string"),
        (lambda rows: [*rows, {**rows[0], "sample": -1}], "'sample' must be a whole number"),
        (lambda rows: [*rows, {**rows[0], "sample": "2"}], "'sample' must be a whole number"),
        (lambda rows: [*rows, {**rows[0], "sample": 2, "finish_reason": "stap"}], "no finish_reason 'stap'"),
        (lambda rows: [*rows, ["a"]], "must be a JSON object"),
    ],
)
def test_rows_that_cant_be_used_are_refused(rows: list[Any], problems: Path, tmp_path: Path, change, message) -> None:
    with pytest.raises(UserError, match=message) as error:
        take(change(rows), problems, tmp_path)
    assert "theirs.jsonl" in str(error.value)
    assert not (tmp_path / "sums.samples.parquet").exists()


def test_a_file_that_changed_since_is_refused(rows: list[Any], problems: Path, tmp_path: Path) -> None:
    source = tmp_path / "theirs.jsonl"
    source.write_text(json.dumps(rows[0]) + "\n")
    spec = PredictedSpec(
        scale="toy", policy=PredictionsSpec(id="theirs", sha256="0" * 64), benchmark=BENCHMARK, samples=1
    )
    with pytest.raises(UserError, match="changed since the study was read"):
        take_predictions(spec, tmp_path / "out.parquet", source=source, problems=problems)
