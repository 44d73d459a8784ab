"""A random model that GPU kernels take: heads of 64, peaked outputs, weights that are whole in bfloat16."""

from pathlib import Path

from tiny_models import VOCABULARY, tiny_table

HEAD = 64  # the smallest that GPU attention kernels take


def make(home: Path) -> tuple[Path, Path]:
    """A random Qwen2 and its neighbor table's file."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    made = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=4 * HEAD,
            intermediate_size=8 * HEAD,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.15,
            tie_word_embeddings=False,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
            sliding_window=None,
        )
    )
    # whole bfloat16 numbers, so that engines and trainer have the same weights in either type
    made.to(torch.bfloat16).float().save_pretrained(home / "model")
    return home / "model", tiny_table(home / "model", home / "neighbors.safetensors")
