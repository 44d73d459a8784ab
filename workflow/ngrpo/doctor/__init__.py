"""`ngrpo doctor`: what is there, what is missing, and which scale can run, on any node.

Standard library alone, so that it also runs where nothing is installed: `PYTHONPATH=workflow python3 -m ngrpo.doctor`.
It starts nothing but nvidia-smi, nvcc and sinfo, and asks the hub whether it answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ngrpo.doctor import environments, machine, outside
from ngrpo.doctor.findings import SCALES, Finding

ENVS = Path(__file__).resolve().parents[3] / "envs"


def parser() -> argparse.ArgumentParser:
    """The options."""
    told = argparse.ArgumentParser(prog="ngrpo doctor", description=__doc__.splitlines()[0])
    told.add_argument("--scale", choices=SCALES, default="toy", help="exit code 0 if this scale can run (default: toy)")
    folder = "folder (venv or conda prefix), 'deployed' for this program's own, 'elsewhere' if not on this node"
    told.add_argument("--workflow", default=".venv", help=f"the workflow environment: {folder}")
    told.add_argument("--train", default=".venv-train", help=f"the training environment: {folder}")
    told.add_argument("--data-folder", type=Path, help="your problem files, for data sets of kind `folder`")
    told.add_argument("--config", type=Path, default=Path("config"), help="the study's configuration")
    told.add_argument("--results", type=Path, default=Path("results"), help="where results go")
    return told


def examine(told: argparse.Namespace, envs: Path = ENVS) -> list[Finding]:
    """Everything that was looked at, in order."""
    node = [machine.cores(), machine.memory(), machine.shared_memory()]
    found = [machine.python(), *node, machine.disk(told.results)]
    workflow, _, _ = environments.environment("workflow", told.workflow, [envs / "workflow.lock"])
    locks = [envs / "train-cpu.lock", envs / "train-gpu.lock"]
    train, lock, have = environments.environment("train", told.train, locks)
    found += workflow + train + (environments.stack(have, lock) if have else [])
    gpu, fit = machine.gpus()
    slurm, cluster = outside.slurm()
    if not fit and not cluster and not gpu.stops:
        gpu = Finding(gpu.what, gpu.state, "the paper's scale needs GPUs, here or through SLURM", ("paper",))
    if cluster and not fit:  # a login node: what it lacks itself, the jobs' nodes may have
        found = [replace(f, stops=tuple(s for s in f.stops if s != "paper")) if f in node else f for f in found]
        gpu = Finding(gpu.what, gpu.state, "on a node of the cluster that has GPUs, run ngrpo doctor again")
    found += [gpu, machine.compiler()] if fit else [gpu]
    found.append(slurm)
    if not (told.config / "scales").is_dir():
        return [*found, Finding("configuration", f"none in {told.config}", "run it in the project's folder", SCALES)]
    try:
        return [
            *found,
            outside.hub(told.config, told.results),
            outside.data_folder(told.config, told.results, told.data_folder),
        ]
    except ImportError:
        return [*found, Finding("sources", "not looked at: this Python has no yaml", "run .venv/bin/ngrpo doctor")]


def verdicts(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """What stops each scale."""
    return {scale: [f.what for f in findings if scale in f.stops] for scale in SCALES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for everything, then what each scale lacks; 0 if the asked scale can run, else 1."""
    told = parser().parse_args(arguments)
    findings = examine(told)
    print("what | state | do")
    for finding in findings:
        print(finding)
    print()
    stopped = verdicts(findings)
    for scale, reasons in stopped.items():
        print(f"{scale}: {'no: ' + ', '.join(reasons) if reasons else 'can run'}{' <' if scale == told.scale else ''}")
    return 1 if stopped[told.scale] else 0
