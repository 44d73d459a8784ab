"""What sglang needs on a GPU for models that its GPU kernels aren't made for: float32 weights, heads of other sizes.

The toy model is one (float32, heads of 32). sglang's attention (flashinfer) and rotary embedding (sgl-kernel) know half
precision and heads of 64, 128 and 256 alone; for others it asks for vllm, which no lock has. Here such a model attends
through Triton, in plain float32 if that is its type, and turns by sglang's own PyTorch form. Other models, and machines
without a GPU, see none of it.
"""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ngrpo.engines.model_folder import engine_dtype, model_config

HEADS = (64, 128, 256)
STUBS = Path(__file__).parent / "stubs"


def is_unusual(config: Mapping[str, Any], dtype: str) -> bool:
    """Whether a model computes in float32, or its config.json has heads of a size that the kernels don't know."""
    heads = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return dtype == "float32" or heads not in HEADS


def server_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """These server arguments for a GPU, made to fit the model at `model_path`; call before sglang is started."""
    model = Path(given["model_path"])
    dtype = engine_dtype(given.get("dtype"), model, on_cpu=False)
    if not is_unusual(model_config(model), dtype):
        return {**given, "dtype": dtype}
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # its products of float32 are tf32 otherwise
    return {**given, "dtype": dtype, "attention_backend": "triton", "sampling_backend": "pytorch"}


def patch() -> None:
    """In a scheduler process: rotary embeddings of other head sizes take sglang's PyTorch form; again changes nothing.

    Safe: it is the form that the kernels are checked against. Not in place, such a model ends in an ImportError.
    """
    if find_spec("vllm") is None:
        sys.path.append(str(STUBS))  # sglang imports a name from it, which is then not called
    from sglang.srt.layers.rotary_embedding import RotaryEmbedding

    stock = getattr(RotaryEmbedding.forward_cuda, "stock", RotaryEmbedding.forward_cuda)

    def forward_cuda(layer: Any, *args: Any, **kwargs: Any) -> Any:
        forward = stock if layer.head_size in HEADS or layer.head_size == 512 else type(layer).forward_native
        return forward(layer, *args, **kwargs)

    forward_cuda.stock = stock  # type: ignore[attr-defined]
    RotaryEmbedding.forward_cuda = forward_cuda
