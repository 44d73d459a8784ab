"""Tiny models with peaked outputs, and their neighbor tables: near-uniform outputs would hide errors."""

from pathlib import Path

VOCABULARY = 512


def tiny_model(
    folder: Path,
    *,
    family: str = "qwen2",
    tied: bool = False,
    seed: int = 0,
    head: int = 16,
    spread: float = 0.3,
    positions: int = 512,
) -> Path:
    """A random model of a family (qwen2 | llama | qwen3) in a Hugging Face folder, without a tokenizer.

    head: numbers of each of its four attention heads; spread: standard deviation of its weights; positions: the most
    tokens that it takes.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

    config, model = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[family]
    torch.manual_seed(seed)
    made = model(
        config(
            vocab_size=VOCABULARY,
            hidden_size=4 * head,
            intermediate_size=8 * head,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=positions,
            initializer_range=spread,
            tie_word_embeddings=tied,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            **({"sliding_window": None} if family == "qwen2" else {}),
            **({"head_dim": head} if family == "qwen3" else {}),
        )
    )
    made.to(torch.float32).save_pretrained(folder)
    return folder


def tiny_table(model: Path, path: Path, *, k: int = 3, metric: str = "cosine") -> Path:
    """The neighbor table of a model's input embedding."""
    from transformers import AutoModelForCausalLM

    from ngrpo.method.neighbor_table import build

    E = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight
    build(E, k, metric).save(path)
    return path
