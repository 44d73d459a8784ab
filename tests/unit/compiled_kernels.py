"""Compile the kernels of `ngrpo.method.fused` for GPUs, on any machine, and print what each uses."""

import subprocess
import tempfile
from pathlib import Path

import triton
import triton.backends.nvidia as nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ngrpo.method import fused

KERNELS = {
    "_uniform": (
        {"seed": "*i64", "position": "*i64", "out": "*fp64", "n": "i32"},
        {"STREAM": 0x9E3779B97F4A7C15, "BLOCK": fused._WORDS},
    ),
    "_nucleus": (
        {"p": "*fp32", "top_p": "*fp32", "top_k": "*i32", "out": "*fp32", "V": "i32"},
        {"BLOCK": fused._PIECE},
    ),
}


def used(capability: int, name: str) -> str:
    """Registers, stack and shared memory of a kernel on GPUs of this compute capability."""
    signature, constants = KERNELS[name]
    source = ASTSource(getattr(fused, name), signature=signature, constants=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": fused._WARPS})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        lines = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return lines[lines.index(f"Function {name}") :].splitlines()[1].strip()


if __name__ == "__main__":
    for capability in (80, 90):
        for name in KERNELS:
            print(f"sm_{capability} {name}: {used(capability, name)}")
