"""Policies from elsewhere as folders: copied, merged, asked as their base model is; what doesn't fit is refused."""

import json
import shutil
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.stages.base_models import make_model
from ngrpo.stages.policies import make_policy, open_peft
from ngrpo.study.contents import policy_digest
from ngrpo.study.layout import MODEL_CARD
from ngrpo.study.sources import Model, ToyModel
from ngrpo.study.specs import ModelSpec, PolicySpec

pytestmark = pytest.mark.train

STOP = "}"
BASE = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=2), dtype="float32", stop=STOP))
OTHER = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=2, seed=2), dtype="float32"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "toy"
    make_model(BASE, folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights of the same architecture, which end where the model itself does."""
    folder = tmp_path_factory.mktemp("trained") / "toy"
    make_model(OTHER, folder)
    return folder


@pytest.fixture
def theirs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "theirs"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the base model with weights that change something."""
    import torch
    from transformers import AutoModelForCausalLM

    peft, folder = open_peft(), tmp_path_factory.mktemp("adapter") / "lora"
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    model.save_pretrained(folder)
    return folder


def spec_of(folder: Path, **changes) -> PolicySpec:
    return PolicySpec(id="theirs", model=BASE, content=policy_digest(folder), **changes)


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_a_folder_is_copied_and_speaks_like_its_base(theirs: Path, base: Path, tmp_path: Path) -> None:
    make_policy(spec_of(theirs), tmp_path / "out", base=base, source=theirs)
    made = tmp_path / "out"
    assert (made / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (made / name).read_bytes() == (base / name).read_bytes(), name
    assert read_json(made / MODEL_CARD)["spec"] == spec_of(theirs).digest
    # its own generation_config.json ends elsewhere
    assert (theirs / "generation_config.json").read_bytes() != (base / "generation_config.json").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_checkpoint_without_a_tokenizer_gets_its_bases(theirs: Path, base: Path, tmp_path: Path) -> None:
    for path in theirs.glob("tokenizer*"):
        path.unlink()
    make_policy(spec_of(theirs), tmp_path / "out", base=base, source=theirs)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_an_adapter_is_added_to_its_bases_weights(adapter: Path, base: Path, tmp_path: Path) -> None:
    make_policy(spec_of(adapter, merge=True), tmp_path / "out", base=base, source=adapter)
    from safetensors.torch import load_file

    plain, merged, low_rank = weights(base), weights(tmp_path / "out"), load_file(adapter / "adapter_model.safetensors")
    assert plain.keys() == merged.keys()
    changed = 0
    for name, before in plain.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (low_rank.get(f"{stem}.lora_{letter}.weight") for letter in "AB")
        expected = before if a is None else before + 4 / 2 * b @ a  # LoRA's Eq. 3: W + α/r · B A
        changed += a is not None
        assert (merged[name] - expected).abs().max() < 1e-6, name
        assert a is None or (merged[name] - before).abs().max() > 1e-3, name
    assert changed == len(low_rank) // 2 > 0
    assert "merged with toy" in read_json(tmp_path / "out" / MODEL_CARD)["origin"]


def test_an_adapter_alone_is_no_policy(adapter: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is an adapter"):
        make_policy(spec_of(adapter), tmp_path / "out", base=base, source=adapter)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    small = ModelSpec(id="toy", model=Model(source=ToyModel(kind="toy", steps=1, hidden_size=64), dtype="float32"))
    make_model(small, tmp_path / "small")
    with pytest.raises(UserError, match="doesn't fit its base model"):
        make_policy(spec_of(adapter, merge=True), tmp_path / "out", base=tmp_path / "small", source=adapter)
    pickled = Path(shutil.copytree(adapter, tmp_path / "pickled"))
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        make_policy(spec_of(pickled, merge=True), tmp_path / "out", base=tmp_path / "small", source=pickled)


def test_another_tokenizer_is_refused_unless_it_is_its_own(theirs: Path, base: Path, tmp_path: Path) -> None:
    path = theirs / "tokenizer.json"
    path.write_text(path.read_text().replace('"7"', '"§"'))
    with pytest.raises(UserError, match=r"its tokenizer isn't that of toy: 2 tokens differ, such as '7'"):
        make_policy(spec_of(theirs), tmp_path / "out", base=base, source=theirs)
    spec = spec_of(theirs, own_tokenizer=True)
    make_policy(spec, tmp_path / "out", base=base, source=theirs)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert STOP  # its answers end there, too
    assert len(read_json(tmp_path / "out" / "generation_config.json")["eos_token_id"]) == 2


def test_another_vocabulary_is_refused(theirs: Path, base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(theirs)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(theirs)
    with pytest.raises(UserError, match=r"its vocabulary has \d+ rows, the base model's \d+"):
        make_policy(spec_of(theirs), tmp_path / "out", base=base, source=theirs)
    model.resize_token_embeddings(4)
    model.save_pretrained(theirs)
    with pytest.raises(UserError, match=r"its tokenizer has \d+ tokens, its vocabulary 4 rows"):
        make_policy(spec_of(theirs, own_tokenizer=True), tmp_path / "out", base=base, source=theirs)


def test_a_folder_that_changed_since_is_refused(theirs: Path, base: Path, tmp_path: Path) -> None:
    spec = spec_of(theirs)
    config = read_json(theirs / "config.json")
    (theirs / "config.json").write_text(json.dumps({**config, "architectures": ["Another"]}))
    with pytest.raises(UserError, match="changed since the study was read"):
        make_policy(spec, tmp_path / "out", base=base, source=theirs)
    with pytest.raises(UserError, match="no such policy folder"):
        make_policy(spec, tmp_path / "out", base=base, source=tmp_path / "nowhere")
