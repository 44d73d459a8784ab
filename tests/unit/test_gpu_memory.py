"""Token budgets from a GPU's memory: promises of the computation, and what verl is told."""

import itertools
import json
from pathlib import Path

import pytest

from ngrpo.doctor import machine
from ngrpo.gpu_memory import CARDS, GB, KNOWN, Budget, budget, shape_like, shape_of, smallest_card
from ngrpo.study.expand import load_study

CONFIG = Path(__file__).resolve().parents[2] / "config"
QWEN_0_5B = {
    "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "intermediate_size": 4864, "vocab_size": 151_936, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
LONGEST = 4096 + 8192
R1_1_5B = {
    "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
    "intermediate_size": 8960, "vocab_size": 151_936, "tie_word_embeddings": False,
}  # fmt: skip


def test_the_shape_of_a_model_is_read_from_its_configuration() -> None:
    shape = shape_of(R1_1_5B)
    assert shape.parameters == pytest.approx(1.777e9, rel=1e-3)
    assert (shape.layers, shape.width, shape.kv_width, shape.vocabulary) == (28, 1536, 256, 151_936)
    assert shape_of({**R1_1_5B, "tie_word_embeddings": True}).parameters == pytest.approx(1.544e9, rel=1e-3)
    assert shape_like(1.777e9).kv_width == 256


@pytest.mark.parametrize("shape", KNOWN, ids=lambda shape: f"{shape.parameters / GB:.2f}B")
@pytest.mark.parametrize("longest", [2048, LONGEST, 36_864])
def test_budgets_hold_one_longest_sequence_and_grow_with_memory(shape, longest: int) -> None:
    for gpus in (1, 2, 4, 8):
        made = [budget(card * GB, gpus, shape, longest) for card in CARDS]
        for one in made:
            assert min(one.update_tokens, one.log_prob_tokens) >= longest  # verl refuses less
            assert 0.1 <= one.engine_fraction <= 0.85
        for smaller, larger in itertools.pairwise(made):
            assert larger.update_tokens >= smaller.update_tokens
            assert larger.missing <= smaller.missing
    for card in CARDS:
        few, many = (budget(card * GB, gpus, shape, longest) for gpus in (1, 8))
        assert many.missing <= few.missing
        assert many.update_tokens >= few.update_tokens


def test_the_papers_sizes_fit_where_their_bytes_do() -> None:
    """1.5B and 7B at 4,096 + 8,192 tokens: 16 bytes a parameter and 12 V a token, by hand."""
    small, large = shape_of(R1_1_5B), shape_like(7.62e9)
    assert [smallest_card(n, small, LONGEST) for n in (1, 8)] == [80, 40]
    assert [smallest_card(n, large, LONGEST) for n in (1, 2, 4, 8)] == [None, 141, 80, 80]
    state, logits = 16 * 7.62e9 / 8, 12 * 152_064 * LONGEST
    assert budget(40 * GB, 8, large, LONGEST).missing > state + logits - 40 * GB
    assert not budget(80 * GB, 8, large, LONGEST).missing
    assert "too little" in str(budget(24 * GB, 1, large, LONGEST))


def test_the_optimizer_leaves_the_gpu_where_the_engine_would_lack_room() -> None:
    shape = KNOWN[1]
    assert budget(40 * GB, 8, shape, LONGEST).optimizer_offload
    assert not budget(80 * GB, 8, shape, LONGEST).optimizer_offload


def test_the_doctor_says_what_this_nodes_gpus_would_be_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cards", lambda: [["A100", "81920", "550.54", "8.0"]] * 8)
    said = machine.token_budgets()
    assert said.state.startswith("single, 0.5B: updates of ")
    assert "paper, 7B: updates of " in said.state
    assert not said.do
    monkeypatch.setattr(machine, "_cards", lambda: [["L4", "24576", "550.54", "8.9"]])
    assert "GB too little" in machine.token_budgets().state
    assert machine.token_budgets().do


@pytest.mark.parametrize(("card", "sizes"), [(24, 1), (40, 2), (80, 2), (141, 2)])
def test_the_scale_single_fits_one_gpu(card: int, sizes: int) -> None:
    """0.5B from 24 GB on, 1.5B from 40: with the paper's stack, and where the engine keeps a quarter of the card."""
    training = load_study(CONFIG, "single").runs["ngrpo-qwen2.5-0.5b"].training
    longest = training.max_prompt_tokens + training.max_response_tokens
    assert (1, longest) == machine.SIZES["single"][:2]
    for held in (0.0, 0.25):
        fits = [budget(card * GB, 1, shape, longest, held=held) for shape in KNOWN[-2:]]
        assert sum(not fit.missing for fit in fits) == (sizes if held == 0 or card > 40 else 1)
        assert fits[0].update_tokens >= longest
        assert not held or fits[0].engine_fraction == held


def test_an_engine_that_keeps_its_memory_leaves_the_trainer_less() -> None:
    free, held = (budget(24 * GB, 1, KNOWN[-2], 1536, held=share) for share in (0.0, 0.25))
    assert free.update_tokens - held.update_tokens >= 0.25 * 24 * GB / (13 * KNOWN[-2].vocabulary)
    assert held.log_prob_tokens < free.log_prob_tokens
    assert budget(24 * GB, 1, KNOWN[-2], 1536, held=0.5).missing


@pytest.mark.train
@pytest.mark.parametrize("card", [24, 40, 80, 141])
def test_verl_is_told_what_fits_the_scale_single(card: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from test_recipe import settings_of

    from ngrpo.training.verl import accelerator, recipe

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN_0_5B))
    total = type("Properties", (), {"total_memory": card * GB})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
    for module in (accelerator, recipe.accelerator):
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    config = settings_of(load_study(CONFIG, "single").runs["ngrpo-qwen2.5-0.5b"], tmp_path)
    rollout, actor = (config["actor_rollout_ref"][part] for part in ("rollout", "actor"))
    fits = budget(card * GB, 1, shape_of(QWEN_0_5B), 1536)
    assert config["trainer"]["device"] == "cuda"
    assert (actor["use_dynamic_bsz"], actor["ppo_max_token_len_per_gpu"]) == (True, fits.update_tokens)
    assert rollout["gpu_memory_utilization"] == fits.engine_fraction
    assert (rollout["prompt_length"], rollout["response_length"]) == (512, 1024)
    assert rollout["dtype"] == "bfloat16"


@pytest.mark.train
def test_verl_is_told_the_budgets_by_keys_that_it_has() -> None:
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from ngrpo.training.verl import accelerator

    fits = Budget(16_384, 32_768, False, 0.7, 0.0)
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer")
    chosen = accelerator.settings(32, 16, 1000, "bfloat16", fits=fits)
    for key in chosen:
        if "attn_implementation" not in key:
            assert OmegaConf.select(config, key, default="absent") != "absent", key
    assert chosen["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == 16_384
    assert chosen["actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu"] == 32_768
    by_tokens = accelerator.micro_batches(fits, "token-mean")
    assert "actor_rollout_ref.actor.use_dynamic_bsz" not in by_tokens
    assert by_tokens["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"] == 2
