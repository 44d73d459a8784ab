"""A random model that GPU kernels take: heads of 64, peaked outputs, weights that are whole in bfloat16."""

from pathlib import Path

from tiny_models import tiny_model, tiny_table

HEAD = 64  # the smallest that GPU attention kernels take


def make(home: Path) -> tuple[Path, Path]:
    """A random Qwen2 and its neighbor table's file."""
    import torch
    from transformers import AutoModelForCausalLM

    model = tiny_model(home / "model", head=HEAD, spread=0.15, positions=2048)
    # whole bfloat16 numbers, so that engines and trainer have the same weights in either type
    AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.bfloat16).float().save_pretrained(model)
    return model, tiny_table(model, home / "neighbors.safetensors")
