"""The node itself: Python, cores, memory, disk, shared memory, GPUs and the CUDA compiler.

The needs of toy and smoke were seen here on two cores; those of single and paper are computed from models' sizes and
untried. What a study takes on disk: `ngrpo.planning.disk`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from ngrpo.doctor.checks import ON_GPUS, SCALES, Diagnosis, short_of
from ngrpo.gpu_memory import budget, shape_like

PYTHON = (3, 11)
CORES = {"toy": 1, "smoke": 1, "single": 4, "paper": 8}
MEMORY = {"toy": 6, "smoke": 8, "single": 24, "paper": 128}  # GB
SHARED_MEMORY = {"toy": 0.25, "smoke": 0.25, "single": 2, "paper": 8}  # GB free; Ray's object store, NCCL between GPUs
GPUS = 8  # the paper's number for a run
GPU_MEMORY = {"single": 23, "paper": 40}  # GB; cards sold as 24 have 24 or a little more
DRIVER = 525.60  # oldest that runs CUDA 12 builds
CAPABILITY = 8.0  # bfloat16 and flash-attn 2
GB = 1e9
SIZES = {
    "single": (1, 512 + 1024, {"0.5B": 4.94e8, "1.5B": 1.54e9}),
    "paper": (None, 4096 + 8192, {"1.5B": 1.78e9, "7B": 7.62e9}),
}
"""Of a scale: GPUs that train together (None: all of the node), tokens of its longest prompts and responses, and its
models' sizes."""


def run(*command: str) -> str | None:
    """What a program prints, or None where it isn't there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def python() -> Diagnosis:
    """This Python's version."""
    right = sys.version_info[:2] == PYTHON
    wanted = ".".join(map(str, PYTHON))
    return Diagnosis(
        "Python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if right else f"both environments need Python {wanted}: install it, then make env PYTHON=python{wanted}",
        () if right else SCALES,
    )


def cores() -> Diagnosis:
    """Cores that this process may use."""
    n = len(os.sched_getaffinity(0))
    stops = short_of(n, CORES)
    return Diagnosis("cores", str(n), f"ask for {CORES['paper']} or more" if stops else "", stops)


def memory(meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Diagnosis:
    """Memory of the node, or of the container or job that we are in."""
    total = next(int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if "MemTotal" in line)
    state = f"{total / GB:.0f} GB"
    if limit.exists() and limit.read_text().strip().isdigit() and int(limit.read_text()) < total:
        total = int(limit.read_text())
        state = f"{total / GB:.0f} GB allowed here (the node has {state})"
    stops = short_of(total / GB, MEMORY)
    return Diagnosis("memory", state, f"{stops[-1]} needs {MEMORY[stops[-1]]} GB" if stops else "", stops)


def disk(results: Path, needs: dict[str, tuple[float, float]]) -> Diagnosis:
    """Room where results go; needs: of each scale the bytes still to come with one training at a time, and with all."""
    place = next(p for p in (results.absolute(), *results.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    stops = tuple(scale for scale, (one, _) in needs.items() if free < one)
    state = f"{free / GB:.0f} GB free for {results}"
    if not needs:
        return Diagnosis("disk", f"{state}; what a study takes isn't computed here", "run .venv/bin/ngrpo doctor")
    shown = stops or tuple(scale for scale, (_, every) in needs.items() if free < every)
    if not shown:
        return Diagnosis("disk", state)
    one, every = needs[shown[-1]]
    do = f"{shown[-1]} takes {one / GB:.0f} GB with one training at a time, {every / GB:.0f} GB with all at once"
    do += "; name another folder: --config results=FOLDER" if stops else ": let fewer run at a time (--jobs)"
    return Diagnosis("disk", state, do, stops)


def shared_memory(place: Path = Path("/dev/shm")) -> Diagnosis:
    """Room in /dev/shm; with too little Ray goes to disk, so only the GPUs' own traffic stops."""
    free = shutil.disk_usage(place).free / GB if place.exists() else 0.0
    short = short_of(free, SHARED_MEMORY)
    do = f"{short[-1]} wants {SHARED_MEMORY[short[-1]]} GB (docker: --shm-size, a job: more memory)" if short else ""
    return Diagnosis("/dev/shm", f"{free:.1f} GB free", do, tuple(s for s in short if s in ON_GPUS))


def _number(text: str) -> float:
    """A number that nvidia-smi prints; 0 where it prints that it doesn't know."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def token_budgets() -> Diagnosis:
    """What training would be set to here, of two sizes at each scale's lengths (computed: `ngrpo.gpu_memory`)."""
    cards = _cards()
    card, said, lacks = _number(cards[0][1]) * 2**20, [], False
    for scale, (gpus, longest, sizes) in SIZES.items():
        fits = {name: budget(card, gpus or len(cards), shape_like(size), longest) for name, size in sizes.items()}
        said += [f"{scale}, {name}: {fit}" for name, fit in fits.items()]
        lacks |= any(fit.missing for fit in fits.values())
    return Diagnosis("GPU memory", "; ".join(said), "more or larger GPUs, or shorter responses" if lacks else "")


def _cards() -> list[list[str]]:
    """Of each GPU: name, memory in MiB, driver, capability."""
    fields = "--query-gpu=name,memory.total,driver_version,compute_cap"
    output = run("nvidia-smi", fields, "--format=csv,noheader,nounits")
    return [[part.strip() for part in line.split(",")] for line in (output or "").splitlines() if line.count(",") == 3]


def gpus() -> tuple[Diagnosis, tuple[str, ...]]:
    """GPUs of this node, and which of the scales that need one they can run."""
    rows = _cards()
    if not rows:
        there = shutil.which("nvidia-smi") is not None
        return Diagnosis("GPUs", "nvidia-smi finds none" if there else "none (no nvidia-smi)"), ()
    name, mib, driver, capability = rows[0]
    gb = _number(mib) * 2**20 / GB
    state = f"{len(rows)} × {name}, {gb:.0f} GB, driver {driver}, capability {capability}"
    small = tuple(scale for scale in ON_GPUS if gb < GPU_MEMORY[scale])
    for good, do in (
        (_number(".".join(driver.split(".")[:2])) >= DRIVER, f"CUDA 12 needs driver {DRIVER} or newer"),
        (_number(capability) >= CAPABILITY, f"bfloat16 and flash-attn need capability {CAPABILITY} (A100) or newer"),
    ):
        if not good:
            return Diagnosis("GPUs", state, do, ON_GPUS), ()
    if small:
        do = f"the scale {small[0]} needs GPUs of {GPU_MEMORY[small[0]]} GB or more"
        return Diagnosis("GPUs", state, do, small), tuple(scale for scale in ON_GPUS if scale not in small)
    few = len(rows) < GPUS
    return Diagnosis("GPUs", state, f"fewer than the paper's {GPUS} a run: it takes longer" if few else ""), ON_GPUS


def compiler() -> Diagnosis:
    """nvcc, with which flashinfer compiles its kernels."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    output = run(nvcc, "--version") if nvcc else None
    if output is None:
        return Diagnosis(
            "CUDA compiler",
            "no nvcc",
            "flashinfer compiles with it: load the CUDA 12.4 module, or set CUDA_HOME",
            ("paper",),
        )
    release = next((word.rstrip(",") for line in output.splitlines() for word in line.split() if word[:1] == "V"), "?")
    return Diagnosis("CUDA compiler", f"nvcc {release} at {nvcc}")
