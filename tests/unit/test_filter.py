"""Which training problems stay: each reason to leave with its control, and a card that names every row."""

import json
from pathlib import Path

import pytest

from ngrpo.data.datasets import card_path, read_problems, write_problems
from ngrpo.data.similarity import NEAR, Overlap, fingerprint
from ngrpo.errors import UserError
from ngrpo.files import file_sha256
from ngrpo.stages.base_models import make_model
from ngrpo.stages.training_data import REASONS, make_training_data
from ngrpo.study.sources import Dataset, FolderDataset, Model, ToyModel
from ngrpo.study.specs import DatasetSpec, ModelSpec, TrainingDataSpec

pytestmark = pytest.mark.train

TOY = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=20), dtype="float32"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model's folder."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    make_model(TOY, folder)
    return folder


def _row(number: int, problem: str, answer: str | None = "4", kind: str = "math") -> dict:
    return {"id": str(number), "problem": problem, "answer": answer, "solution": None, "kind": kind, "order": None}


def _dataset(**changes) -> DatasetSpec:
    source = FolderDataset(kind="folder", file="x.jsonl")
    return DatasetSpec(id="set", dataset=Dataset(source=source, instruction="", **changes))


def _filter(folder: Path, model: Path, rows: list[dict], held_out: list[dict], **changes) -> tuple[list[dict], dict]:
    tokens = changes.pop("max_prompt_tokens", 14)
    write_problems(folder / "in.parquet", rows)
    write_problems(folder / "bench.parquet", held_out)
    near = changes.pop("near_duplicates", None)
    dataset = _dataset(**changes)
    spec = TrainingDataSpec(
        dataset=dataset, model=TOY, benchmarks=(dataset,), max_prompt_tokens=tokens, near_duplicates=near
    )
    out = folder / "out.parquet"
    make_training_data(
        spec, problems=folder / "in.parquet", benchmarks=[folder / "bench.parquet"], model=model, out=out
    )
    return read_problems(out), json.loads(card_path(out).read_text())


STAYS = [_row(0, "12+34"), _row(6, "78-12", "\\frac{1}{2}")]
LEAVES = {  # the row that leaves, and the control: nearly the same row, which stays
    "no answer": (_row(1, "12+35", None), _row(1, "12+35", "0")),
    "unparsable answer": (_row(1, "12+36", "\\frac{"), _row(1, "12+36", "\\frac{1}{3}")),
    "duplicate": (_row(1, "12 + 34"), _row(1, "12 + 3 - 4")),
    "in a benchmark": (_row(1, "56-12"), _row(1, "56+12")),
    "prompt too long": (_row(1, "1" * 12), _row(1, "1" * 10)),
}


@pytest.mark.parametrize("reason", LEAVES)
def test_a_row_leaves_for_its_reason_and_its_control_stays(tmp_path: Path, model: Path, reason: str) -> None:
    leaves, control = LEAVES[reason]
    held_out = [_row(9, "$56 - 12$")]
    rows, card = _filter(tmp_path, model, [*STAYS, leaves], held_out)
    assert [r["id"] for r in rows] == ["0", "6"]
    assert {r: ids for r, ids in card["left_ids"].items() if ids} == {reason: ["1"]}
    rows, card = _filter(tmp_path, model, [*STAYS, control], held_out)
    assert [r["id"] for r in rows] == ["0", "6", "1"]
    assert not any(card["left"].values())


def test_the_card_counts_and_names_every_row_once(tmp_path: Path, model: Path) -> None:
    leaving = [{**row, "id": reason} for reason, (row, _) in LEAVES.items()]
    rows, card = _filter(tmp_path, model, [*STAYS, *leaving], [_row(9, "$56 - 12$")])
    only_where_asked = {"nearly in a benchmark": []}
    assert card["left_ids"] == {**{reason: [reason] for reason in REASONS}, **only_where_asked}
    assert card["left"] == {**dict.fromkeys(REASONS, 1), "nearly in a benchmark": 0}
    assert (card["rows_in"], card["rows_out"]) == (7, 2)
    assert card["kept_out_of"] == ["bench"]
    assert card["sha256"] == file_sha256(tmp_path / "out.parquet")
    assert rows == STAYS  # what stays is untouched


def test_the_limit_of_tokens_counts_the_whole_prompt(tmp_path: Path, model: Path) -> None:
    # <bos> Q: 12+34 = ... A: is 1 + 1 + 5 + 1 + 3 + 1 tokens
    rows, _ = _filter(tmp_path, model, [_row(0, "12+34")], [], max_prompt_tokens=12)
    assert len(rows) == 1
    with pytest.raises(UserError, match="1 prompt too long"):
        _filter(tmp_path, model, [_row(0, "12+34")], [], max_prompt_tokens=11)


def test_letters_of_choice_questions_arent_parsed_as_mathematics(tmp_path: Path, model: Path) -> None:
    rows, _ = _filter(tmp_path, model, [_row(0, "12+34", "B", "choice")], [], kind="choice")
    assert len(rows) == 1


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)no tokenizer.*nowhere"):
        _filter(tmp_path, tmp_path / "nowhere", STAYS, [])
    assert not (tmp_path / "out.parquet").exists()


def test_a_limit_keeps_the_first_and_says_so(tmp_path: Path, model: Path) -> None:
    rows, card = _filter(tmp_path, model, [_row(i, f"1{i}+10") for i in range(5)], [], limit=2)
    assert [r["id"] for r in rows] == ["0", "1"]
    assert card["left"]["beyond the limit"] == 3


def test_nothing_left_is_an_error(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError, match="no training problem is left of 1: 1 no answer"):
        _filter(tmp_path, model, [_row(0, "12+34", None)], [])
    assert not (tmp_path / "out.parquet").exists()


SAME = [
    "Find  $x$.",
    "find $ x $.",
    "FIND $\\,x$.",
    "Find~$x$.",
    "Find\n$x$.",
    "Find $\\displaystyle x$.",
    "Find\\quad $x$.",
]


@pytest.mark.parametrize("other", SAME)
def test_one_problem_in_other_spacing_is_the_same_problem(other: str) -> None:
    assert fingerprint("Find $x$.") == fingerprint(other)
    assert fingerprint("Find $y$.") != fingerprint(other)


def test_commands_that_only_begin_like_spacing_stay() -> None:
    assert fingerprint("a \\leftarrow b") != fingerprint("a arrow b")
    assert fingerprint("\\left( a \\right)") == fingerprint("(a)")


DIFFERENT = [
    ("Convert 1 1/2 to a decimal", "Convert 11/2 to a decimal"),
    ("Convert 1\\quad 1/2", "Convert 11/2"),
    ("Find 2³+1", "Find 23+1"),
    ("Find x₂+1", "Find x2+1"),
    ("Find 1½", "Find 11/2"),
    ("Find ①+1", "Find 1+1"),
    ("Find $a$ if $A=2$", "Find $A$ if $a=2$"),
    ("Find $\\Delta$", "Find $\\delta$"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_problems_that_differ_in_more_than_spacing_are_different(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_raised_digits_and_fractions_are_as_in_latex() -> None:
    assert fingerprint("Find 2³+1") == fingerprint("find $2^{3} + 1$")
    assert fingerprint("Find 1½") == fingerprint("Find 1 1/2")


TALE = (
    "A strictly increasing sequence of positive integers $a_1$, $a_2$, $\\cdots$ has the property that for every "
    "positive integer $k$, the subsequence $a_{2k-1}$, $a_{2k}$ is geometric. Suppose that $a_{13} = 2016$. Find $a_1$."
)
NEARLY = {
    "another beginning": TALE.replace("A strictly increasing", "An increasing"),
    "LaTeX written otherwise": TALE.replace("\\cdots", "\\dots")
    .replace("$", "\\,$ ")
    .replace("a_{13} = 2016", "a_{13}=2016"),
    "a text around it": f"Problem 5 (2016). {TALE} Give your answer as an integer and explain each of your steps.",
    "a changed word": TALE.replace("property", "characteristic"),
}
FAR = {
    "another problem": "Find the number of positive integers $k$ such that $a_k$ is geometric and $k = 2016$.",
    "a part of it": "Find $a_1$.",
    "short, with another number": "How many positive divisors does 360 have?",
}


def test_near_duplicates_of_a_benchmark_are_counted_and_leave_where_asked(tmp_path: Path, model: Path) -> None:
    held_out = [_row(8, TALE), _row(9, "How many positive divisors does 196 have?")]
    texts = {**NEARLY, **FAR}
    rows = [{**_row(0, text), "id": name} for name, text in texts.items()]
    staying, card = _filter(tmp_path, model, rows, held_out, max_prompt_tokens=10**6)
    assert [r["id"] for r in staying] == list(texts)
    assert {pair["id"] for pair in card["near_duplicate_pairs"]} == NEARLY.keys()
    assert {pair["of"] for pair in card["near_duplicate_pairs"]} == {"bench/8"}
    assert (card["near_duplicates"], card["near_duplicate_similarity"]) == (len(NEARLY), NEAR)
    staying, card = _filter(tmp_path, model, rows, held_out, max_prompt_tokens=10**6, near_duplicates=NEAR)
    assert [r["id"] for r in staying] == list(FAR)
    assert card["left_ids"]["nearly in a benchmark"] == list(NEARLY)
    assert card["near_duplicates"] == 0
    staying, _ = _filter(tmp_path, model, rows, held_out, max_prompt_tokens=10**6, near_duplicates=1.0)
    assert "a text around it" not in {r["id"] for r in staying}  # all of the benchmark's problem is in it
    assert "another beginning" in {r["id"] for r in staying}


def test_generated_sums_that_share_a_part_are_no_near_duplicates() -> None:
    overlap = Overlap({"bench/0": "12+34", "bench/1": "12+34-16"})
    for problem in ("12+34-17", "99-12+34", "34+12"):
        similar = overlap.most_similar(problem)
        assert similar is None or similar[1] < NEAR
    assert overlap.most_similar("12+34-16") == ("bench/1", 1.0)


def test_a_setting_that_is_unset_changes_no_identity() -> None:
    spec = TrainingDataSpec(dataset=_dataset(), model=TOY, benchmarks=(), max_prompt_tokens=1)
    assert "near_duplicates" not in spec.text()
    assert "boxes" not in spec.text()
