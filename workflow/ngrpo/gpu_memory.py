"""How many tokens fit on a GPU at once, from its memory, the model and the lengths: token budgets of training.

Computed, not measured: nobody has trained a model of the paper on a GPU with them yet. Standard library alone.

| letter | meaning |
|---|---|
| P | the model's parameters; n GPUs hold 1/n of its training state each (FSDP2) |
| V, d, L | vocabulary, width and layers |

Bytes on one GPU:
1. while updating: 16 P/n (float32 parameters, gradients, two moments), E and the output layer gathered (8 V d), and for
   each token of a micro-batch 12 V (logits in bfloat16 and float32, and their gradients) + 2 d L (a checkpoint a layer)
   + 48 d (one layer again);
2. in a pass of log-probs: the state that is there, and 14 V a token (logits in bfloat16; float32 logits, softmax and
   entropy);
3. while sampling: the state that is there; the engine has its weights (2 P) and keys and values (4 L d_kv a token);
4. always: what CUDA and NCCL take, what fragments (RESERVE, SHARE), and the engine's graphs (GRAPHS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import Any

GB = 10**9
CARDS = (24, 40, 80, 96, 141)
"""Sizes of cards in GB that plans are shown for."""
RESERVE, SHARE, GRAPHS = 2 * GB, 0.08, 2 * GB
STEP = 256
"""Budgets are multiples of so many tokens."""
UPDATE_MOST, LOG_PROB_MOST = 32_768, 65_536
"""Larger micro-batches are no faster: a GPU is busy with these."""
ENGINE_MOST = 0.85
AT_ONCE = 32
"""Longest responses that the engine should hold at once; where it can't, the optimizer's state leaves the GPU."""


@dataclass(frozen=True)
class ModelShape:
    """What of a model takes memory; kv_width: heads of keys × their size."""

    parameters: float
    layers: int
    width: int
    kv_width: int
    vocabulary: int


KNOWN = (
    ModelShape(1.24e9, 16, 2048, 512, 128_256),  # Llama-3.2-1B
    ModelShape(1.72e9, 28, 2048, 1024, 151_936),  # Qwen3-1.7B
    ModelShape(1.78e9, 28, 1536, 256, 151_936),  # DeepSeek-R1-Distill-Qwen-1.5B
    ModelShape(7.62e9, 28, 3584, 512, 152_064),  # DeepSeek-R1-Distill-Qwen-7B
    ModelShape(4.94e8, 24, 896, 128, 151_936),  # Qwen2.5-0.5B
    ModelShape(1.54e9, 28, 1536, 256, 151_936),  # Qwen2.5-1.5B
)
"""The models of the scales `single` and `paper`, for who has no folder of one yet."""


def shape_like(parameters: float) -> ModelShape:
    """The shape of a model of which only the size is known: that of the nearest of KNOWN."""
    nearest = min(KNOWN, key=lambda shape: abs(log(shape.parameters / parameters)))
    return replace(nearest, parameters=parameters)


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a model's config.json gives, of the families that the study trains (Qwen2, Qwen3, Llama)."""
    d, layers, heads, V = (config[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"))
    size = config.get("head_dim") or d // heads
    kv = size * (config.get("num_key_value_heads") or heads)
    layer = 2 * d * size * heads + 2 * d * kv + 3 * d * config["intermediate_size"]
    embeddings = V * d * (1 if config.get("tie_word_embeddings") else 2)
    return ModelShape(embeddings + layers * layer, layers, d, kv, V)


@dataclass(frozen=True)
class Budget:
    """What is set on one GPU. update_tokens, log_prob_tokens: of a micro-batch; never less than one longest sequence.

    optimizer_offload: whether its state is on the host while it isn't needed. engine_fraction: of the GPU's memory for
    the engine's weights, keys and values. missing: bytes that one longest sequence, or the engine, lacks; 0: it fits.
    """

    update_tokens: int
    log_prob_tokens: int
    optimizer_offload: bool
    engine_fraction: float
    missing: float

    def __str__(self) -> str:
        if self.missing:
            return f"{self.missing / GB:.0f} GB too little"
        optimizer = "on the host" if self.optimizer_offload else "on the GPU"
        return (
            f"updates of {self.update_tokens:,} tokens, log-probs of {self.log_prob_tokens:,}, "
            f"optimizer {optimizer}, engine {self.engine_fraction:.2f}"
        )


def budget(
    card: float, gpus: int, shape: ModelShape, longest: int, tensor_parallel: int = 1, held: float = 0.0
) -> Budget:
    """What to set on a GPU of `card` bytes, of `gpus` that train together; longest: tokens of prompt and response.

    held: share of the card that an engine holds while the trainer works, where it can't give its memory back.
    """
    P, V, d, layers = shape.parameters, shape.vocabulary, shape.width, shape.layers
    free = card * (1 - SHARE - held) - RESERVE - GRAPHS
    gathered = 8 * V * d
    update = free - 16 * P / gpus - gathered
    a_token = 12 * V + 2 * d * layers + 48 * d
    kv = 4 * layers * shape.kv_width / tensor_parallel
    weights = 2 * P / tensor_parallel

    def available(offload: bool) -> float:
        """Beside the training state that stays."""
        return free - (4 if offload else 12) * P / gpus

    offload = not held and available(False) - weights < AT_ONCE * longest * kv
    log_prob = (available(offload) - gathered) / (14 * V + 12 * d)
    engine = held * card if held else min(available(offload), ENGINE_MOST * card)
    missing = max(0.0, longest * a_token - update, weights + longest * kv - engine)
    return Budget(
        _tokens(update / a_token, longest, UPDATE_MOST),
        _tokens(log_prob, longest, LOG_PROB_MOST),
        offload,
        round(max(engine, 0.1 * card) / card, 2),
        missing,
    )


def _tokens(fit: float, longest: int, most: int) -> int:
    """A micro-batch's tokens: what fits, in whole steps, from one longest sequence to `most`."""
    return max(longest, min(int(fit), most) // STEP * STEP)


def smallest_card(gpus: int, shape: ModelShape, longest: int) -> int | None:
    """The smallest of CARDS, in GB, on so many of which the model can be trained; None: on none."""
    return next((card for card in CARDS if not budget(card * GB, gpus, shape, longest).missing), None)
