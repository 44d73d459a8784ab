"""Float32 models with small heads, such as the toy's, where there is a GPU: the configuration that is built for them.

The toy study itself hasn't run on one; what is checked here is what its engine and its trainer would be started with.
"""

import os
from pathlib import Path

import pytest
import torch

from ngrpo.engines.sglang import cpu, unusual
from ngrpo.files import write_json
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
    assert arguments(tmp_path, USUAL, dtype="auto") == {"model_path": str(tmp_path), "dtype": "auto"}
    assert arguments(tmp_path, {**USUAL, "head_dim": 128, "hidden_size": 100}).keys() == {"model_path"}


def test_the_trainer_is_as_exact_as_the_rollout() -> None:
    small = accelerator.settings(32, 16, 1000, "float32")
    assert small["trainer.device"] == "cuda"
    assert small["actor_rollout_ref.rollout.dtype"] == "float32"
    assert small["actor_rollout_ref.actor.fsdp_config.mixed_precision"]["param_dtype"] == "fp32"
    assert small["actor_rollout_ref.model.use_remove_padding"] is False  # which needs flash-attn
    usual = accelerator.settings(32, 16, 1000, "bfloat16")
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
