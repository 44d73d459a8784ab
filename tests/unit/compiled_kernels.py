"""Compile kernels for GPUs, on any machine, and print what each uses: `ngrpo.method.fused`'s and the stand-ins'."""

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
import triton.backends.nvidia as nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ngrpo.engines.sglang import newer
from ngrpo.method import fused

sys.path.append(str(newer.KERNELS))
FUSED = {
    "_uniform": (
        {"seed": "*i64", "position": "*i64", "out": "*fp64", "n": "i32"},
        {"STREAM": 0x9E3779B97F4A7C15, "BLOCK": fused._WORDS},
    ),
    "_nucleus": (
        {"p": "*fp32", "top_p": "*fp32", "top_k": "*i32", "out": "*fp32", "V": "i32"},
        {"BLOCK": fused._PIECE},
    ),
}

STRIDES = {f"stride_{name}": "i32" for name in ("x", "out", "r")}
STAND_INS = {
    "_rmsnorm": (
        {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "residual": "*bf16", **STRIDES, "d": "i32", "eps": "fp32"},
        {"ADD": True, "BLOCK": 2048},
    ),
    "_silu_and_mul": (
        {"x": "*bf16", "out": "*bf16", "stride_x": "i32", "stride_out": "i32", "d": "i32"},
        {"BLOCK": 1024},
    ),
    "_rope": (
        {"positions": "*i64", "x": "*bf16", "cache": "*fp32", "stride_x": "i32", "heads": "i32"},
        {"D": 128, "HALF": 64, "ROTARY_HALF": 64},
    ),
}


def used(module: object, capability: int, name: str, signature: dict, constants: dict) -> str:
    """Registers, stack and shared memory of a kernel on GPUs of this compute capability."""
    source = ASTSource(getattr(module, name), signature=signature, constants=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": fused._WARPS})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        lines = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return lines[lines.index(f"Function {name}") :].splitlines()[1].strip()


if __name__ == "__main__":
    stand_ins = importlib.import_module("sgl_kernel.triton_ops")
    for capability in (80, 90):
        for module, kernels in ((fused, FUSED), (stand_ins, STAND_INS)):
            for name, (signature, constants) in kernels.items():
                print(f"sm_{capability} {name}: {used(module, capability, name, signature, constants)}")
