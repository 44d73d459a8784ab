"""What sglang 0.4.6.post5 needs beside packages newer than itself (`envs/train-gpu-current.lock`).

1. Triton's cache module has settings where it had the three functions that sglang imports by name (from 3.4 on).
2. On a GPU, sgl-kernel and flash-attn, whose binaries are built for one torch: stand-ins (stubs/gpu) at the end of the
   path, and server arguments that name no kernel of others.

Where those packages are, nothing changes.
"""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import triton.runtime.cache  # type: ignore[import-untyped,unused-ignore]

KERNELS = Path(__file__).parent / "stubs" / "gpu"
_SETTINGS = {"default_cache_dir": "dir", "default_dump_dir": "dump_dir", "default_override_dir": "override_dir"}
_ARGUMENTS = {
    "attention_backend": "triton",
    "mm_attention_backend": None,
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "enable_memory_saver": False,
    "disable_custom_all_reduce": True,
}


def prepare() -> None:
    """Make `import sglang` work beside newer packages; again changes nothing.

    Safe: each function of Triton's gives what the setting of its name holds, and installed packages come before
    stand-ins. Not in place, the import of sglang fails.
    """
    cache = triton.runtime.cache
    for name, setting in _SETTINGS.items():
        if not hasattr(cache, name):
            setattr(cache, name, lambda setting=setting: getattr(cache.knobs.cache, setting))
    if torch.cuda.is_available() and find_spec("sgl_kernel") is None:
        sys.path.append(str(KERNELS))


def stands_in() -> bool:
    """Whether this is a GPU whose sglang runs with the stand-ins."""
    spec = find_spec("sgl_kernel") if torch.cuda.is_available() else None
    return spec is not None and KERNELS in Path(str(spec.origin)).parents


def server_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """These server arguments, without kernels that aren't there."""
    return {**given, **(_ARGUMENTS if stands_in() else {})}
