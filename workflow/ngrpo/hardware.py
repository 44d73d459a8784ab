"""What a job ran on: kinds of devices and versions, for the cards beside its results. No host names."""

import platform
from pathlib import Path


def hardware() -> dict[str, str | float]:
    """The devices of this node by kind: {kind, torch} and, of GPUs, {memory_gb, cuda}."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        memory = round(properties.total_memory / 2**30, 1)
        return {
            "kind": properties.name, "memory_gb": memory, "cuda": str(torch.version.cuda), "torch": torch.__version__,
        }  # fmt: skip
    return {"kind": _processor(), "torch": torch.__version__}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
