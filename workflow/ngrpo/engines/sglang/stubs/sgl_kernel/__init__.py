"""Stands in for sgl-kernel's CUDA kernels: sglang only reads these names on import when it runs on a CPU."""

__version__ = "0.1.4"


class allreduce:
    """Holder of custom all-reduce kernels; has none."""
