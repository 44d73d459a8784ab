"""Float32 models with small heads, such as the toy's, where there is a GPU: the configuration that is built for them.

The toy study itself hasn't run on one; what is checked here is what its engine and its trainer would be started with.
"""

import os
from pathlib import Path

import pytest
import torch
from one_card import SHARE

from ngrpo.engines.model_folder import DTYPES, engine_dtype
from ngrpo.engines.sglang import cpu, unusual
from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.gpu_memory import Budget
from ngrpo.training.verl import accelerator

pytestmark = pytest.mark.train

TOY = {"hidden_size": 64, "num_attention_heads": 2, "torch_dtype": "float32"}
USUAL = {"hidden_size": 1536, "num_attention_heads": 12, "torch_dtype": "bfloat16"}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has a GPU."""
    monkeypatch.setattr(cpu, "on_cpu", lambda: False)
    monkeypatch.setattr(accelerator, "on_cpu", lambda: False)
    monkeypatch.setenv("TRITON_F32_DEFAULT", "")
    monkeypatch.delenv(accelerator.EXACT, raising=False)


def arguments(folder: Path, config: dict, **given: object) -> dict:
    """sglang's arguments for a model of this configuration."""
    write_json(folder / "config.json", config)
    return cpu.server_arguments({"model_path": str(folder), **given})


def test_the_engine_keeps_float32_and_attends_without_half_precision_kernels(tmp_path: Path) -> None:
    made = arguments(tmp_path, TOY, dtype="auto")
    assert (made["dtype"], made["attention_backend"]) == ("float32", "triton")
    assert os.environ["TRITON_F32_DEFAULT"] == "ieee"
    assert arguments(tmp_path, {**USUAL, "num_attention_heads": 48}, dtype="bfloat16")["attention_backend"] == "triton"


def test_a_model_that_the_kernels_know_is_left_alone(tmp_path: Path) -> None:
    same = {"model_path": str(tmp_path), "dtype": "bfloat16"}
    assert arguments(tmp_path, USUAL, dtype="auto") == same
    assert arguments(tmp_path, {**USUAL, "head_dim": 128, "hidden_size": 100}) == same


def test_engines_of_the_tests_share_one_card_and_the_studys_take_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not SHARE.keys() & arguments(tmp_path, USUAL).keys()
    monkeypatch.setattr(cpu, "GPU_DEFAULTS", SHARE)
    assert arguments(tmp_path, USUAL).items() >= SHARE.items()
    assert arguments(tmp_path, USUAL, max_total_tokens=256)["max_total_tokens"] == 256
    assert 6 * SHARE["mem_fraction_static"] < 0.88  # engines that tests/gpu holds open at once


@pytest.mark.parametrize("folder", DTYPES)
def test_the_engine_is_told_its_type_and_never_guesses_one(tmp_path: Path, folder: str) -> None:
    """sglang makes float16 of a float32 folder if it is asked for "auto"."""
    for asked in ({}, {"dtype": "auto"}, {"dtype": None}):
        assert arguments(tmp_path, {**USUAL, "torch_dtype": folder}, **asked)["dtype"] == folder
    for configured in DTYPES:
        assert arguments(tmp_path, {**USUAL, "torch_dtype": folder}, dtype=configured)["dtype"] == configured


@pytest.mark.parametrize("folder", DTYPES)
def test_the_studys_type_goes_before_the_folders_and_a_cpu_computes_in_float32(tmp_path: Path, folder: str) -> None:
    write_json(tmp_path / "config.json", {"dtype": f"torch.{folder}"})  # as later versions of transformers write it
    assert engine_dtype(None, tmp_path, on_cpu=False) == folder
    assert engine_dtype("bfloat16", tmp_path, on_cpu=False) == "bfloat16"
    assert engine_dtype("bfloat16", tmp_path, on_cpu=True) == "float32"


def test_a_type_that_nobody_names_or_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="doesn't say its torch_dtype"):
        arguments(tmp_path, {k: v for k, v in USUAL.items() if k != "torch_dtype"})
    with pytest.raises(UserError, match="float16"):
        engine_dtype("float17", on_cpu=False)


def test_the_trainer_is_as_exact_as_the_rollout() -> None:
    small = accelerator.settings(32, 16, 1000, "float32")
    assert small["trainer.device"] == "cuda"
    assert small["actor_rollout_ref.rollout.dtype"] == "float32"
    assert small["actor_rollout_ref.actor.fsdp_config.mixed_precision"]["param_dtype"] == "fp32"
    assert small["actor_rollout_ref.model.use_remove_padding"] is False  # which needs flash-attn
    usual = accelerator.settings(32, 16, 1000, "bfloat16", fits=Budget(16_384, 16_384, False, 0.7, 0.0))
    assert usual["actor_rollout_ref.rollout.dtype"] == "bfloat16"
    assert usual["actor_rollout_ref.model.use_remove_padding"] is True


def test_workers_of_a_float32_run_have_no_half_precision_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerator.replacements() == ()
    assert accelerator.EXACT not in accelerator.worker_environment(1, "bfloat16")
    for name, value in accelerator.worker_environment(1, "float32").items():
        monkeypatch.setenv(name, value)
    assert [r.name for r in accelerator.replacements()] == ["autocast"]


def test_threads_are_shared_by_the_ranks_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert accelerator.worker_environment(8, "bfloat16")["OMP_NUM_THREADS"] == "8"


def test_small_heads_turn_by_sglangs_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cpu.prepare()
    from sglang.srt.layers.rotary_embedding import RotaryEmbedding

    stock = RotaryEmbedding.forward_cuda
    try:
        unusual.patch()
        layer = RotaryEmbedding(32, 32, 64, 10000, True, torch.float32)
        query, key = torch.randn(5, 64), torch.randn(5, 32)
        positions = torch.arange(5)
        native = layer.forward_native(positions, query.clone(), key.clone())
        for ours, expected in zip(layer.forward_cuda(positions, query, key), native, strict=True):
            assert torch.equal(ours, expected)
    finally:
        RotaryEmbedding.forward_cuda = stock
