"""The two environments against their locks, from their packages' metadata: nothing of them is imported or started."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from ngrpo.doctor.checks import ON_GPUS, SCALES, Diagnosis

DEPLOYED, ELSEWHERE = "deployed", "elsewhere"
STACK = (
    "verl", "sglang", "torch", "transformers", "ray", "tensordict", "numpy", "pyarrow", "pandas", "torchao",
    "flashinfer-python", "sgl-kernel", "xgrammar", "torch-memory-saver", "snakemake",
)  # fmt: skip
"""Packages in which another version than the locked one stops a scale; in others it is only told."""
SHOWN = 4


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path) -> dict[str, str]:
    """A lock's packages and versions."""
    pins = re.findall(r"^([\w.-]{1,100})==([^\s;\\]{1,100})", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {plain(name): version for name, version in pins}


def installed(prefix: Path) -> dict[str, str]:
    """Packages of an environment (a venv or a conda prefix), without the build's label: "2.6.0+cu124" is 2.6.0."""
    sites = [str(p) for p in prefix.glob("lib/python3.*/site-packages")]
    return {plain(d.metadata["Name"]): d.version.split("+")[0] for d in distributions(path=sites)} if sites else {}


def differences(have: dict[str, str], lock: dict[str, str]) -> list[str]:
    """Names whose version isn't the lock's, those of the stack first."""
    off = [name for name, version in lock.items() if have.get(name) != version]
    return sorted(off, key=lambda name: (name not in STACK, name))


def environment(name: str, folder: str, locks: list[Path]) -> tuple[list[Diagnosis], Path | None, dict[str, str]]:
    """Checks of one environment, the lock that it comes nearest to, and its packages.

    folder: where it lies; "deployed": the one that this program runs in; "elsewhere": not on this node.
    """
    if folder == ELSEWHERE:
        return [Diagnosis(f"environment {name}", "not on this node, as you say")], None, {}
    prefix = Path(sys.prefix if folder == DEPLOYED else folder)
    what = f"environment {name} ({folder})"
    have = installed(prefix)
    if not have:
        if (prefix / "bin/ngrpo").exists():
            return [Diagnosis(what, "only programs: a container's?", "run ngrpo doctor inside it too")], None, {}
        return (
            [Diagnosis(what, "isn't there", f"{_make(name, locks[0])}, or name its folder: --{name} FOLDER", SCALES)],
            None,
            {},
        )
    locks = [lock for lock in locks if lock.exists()]
    if not locks:
        return [Diagnosis(what, f"{len(have)} packages, no lock to compare them with")], None, have
    lock = min(locks, key=lambda path: len(differences(have, read_lock(path))))
    pins = read_lock(lock)
    off = differences(have, pins)
    if not off:
        checks = [Diagnosis(what, f"{len(pins)} packages as in {lock.name}")]
    else:
        some = ", ".join(f"{n} {have.get(n, 'missing')} (lock: {pins[n]})" for n in off[:SHOWN])
        more = f" and {len(off) - SHOWN} more" if len(off) > SHOWN else ""
        stops = SCALES if any(n in STACK or n not in have for n in off) else ()
        state = f"{len(off)} of {len(pins)} packages aren't as in {lock.name}: {some}{more}"
        checks = [Diagnosis(what, state, _make(name, lock), stops)]
    if not (prefix / "bin/ngrpo").exists():
        checks.append(
            Diagnosis(f"ngrpo in {folder}", "not installed", f"{folder}/bin/pip install --no-deps -e .", SCALES)
        )
    return checks, lock, have


def _make(name: str, lock: Path) -> str:
    return {"train-gpu.lock": "make env-gpu", "train-gpu-current.lock": "make env-current"}.get(lock.name, "make env")


def stack(have: dict[str, str], lock: Path | None) -> list[Diagnosis]:
    """What training and sampling are made of, and flash-attn, which only the paper's scale uses."""
    names = ("verl", "sglang", "torch", "transformers", "ray")
    state = ", ".join(f"{n} {have.get(n, 'missing')}" for n in names)
    gpu = lock is not None and "gpu" in lock.name
    checks = [
        Diagnosis("stack", state)
        if gpu
        else Diagnosis(
            "stack", f"{state}: for CPUs", "with GPUs: make env-gpu or env-current there, then --train FOLDER", ON_GPUS
        )
    ]
    if gpu:
        flash = have.get("flash-attn")
        lacks = "" if flash else "make env-gpu installs it; envs/train-gpu.lock says how"
        checks.append(Diagnosis("flash-attn", flash or "missing", lacks, () if flash else ("paper",)))
    return checks
