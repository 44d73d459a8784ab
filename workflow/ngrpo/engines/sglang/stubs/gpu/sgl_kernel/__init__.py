"""Stands in for sgl-kernel 0.1.4, whose binaries are built for torch 2.6: what a dense Qwen2,
Qwen3 or Llama calls, in Triton.

Any other name can be imported (sglang does that on every GPU) and says so when it is called.
"""

import importlib

__version__ = "0.1.4"


class allreduce:
    """Holder of custom all-reduce kernels; has none (start sglang with disable_custom_all_reduce)."""


def _kernels():
    return importlib.import_module("sgl_kernel.triton_ops")  # not at once: triton is imported late


def rmsnorm(x, weight, eps=1e-6, out=None, **_):
    return _kernels().rmsnorm(x, weight, eps, out)


def fused_add_rmsnorm(x, residual, weight, eps=1e-6, **_):
    """In place: residual += x; x = norm(residual)."""
    _kernels().fused_add_rmsnorm(x, residual, weight, eps)


def silu_and_mul(x, out=None, **_):
    return _kernels().silu_and_mul(x, out)


def apply_rope_with_cos_sin_cache_inplace(positions, query, key, head_size, cos_sin_cache, is_neox=True, **_):
    if not is_neox:
        raise NotImplementedError("only neox rotary embeddings here")
    _kernels().rope(positions, query, key, head_size, cos_sin_cache)


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} isn't in this stand-in")

    missing.__name__ = name
    return missing
