"""Checks for a machine with a GPU: `make test-gpu ENV=.venv-gpu`. One card does: its engines share it (`one_card`).

On a GPU engines run as the paper's study runs them: bfloat16, sglang's own attention kernels, CUDA graphs. On a CPU
the same tests compare what a CPU has, in float32; what needs a GPU is skipped by name.
"""

from contextlib import ExitStack

import pytest
from one_card import one_card
from tiny_models import VOCABULARY, tiny_table

__all__ = ["one_card"]

HEAD = 64  # the smallest that GPU attention kernels take


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random Qwen2 with peaked outputs and heads that GPU kernels take, and its neighbor table's file."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    home = tmp_path_factory.mktemp("gpu")
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


@pytest.fixture(scope="module")
def start(model):
    """start(name of a scheduler or None, **server arguments) → an engine; each is started once in a module."""
    import ngrpo.engines.sglang as plugin
    from ngrpo.engines import open_engine

    engines = {}
    with ExitStack() as stack:

        def get(scheduler=plugin.run_scheduler, **machine):
            key = (scheduler.__module__, *sorted(machine.items()))
            if key not in engines:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(plugin, "run_scheduler", scheduler)
                    engines[key] = stack.enter_context(open_engine("sglang", *model, **machine))
            return engines[key]

        yield get
