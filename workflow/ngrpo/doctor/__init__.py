"""`ngrpo doctor`: what is there, what is missing, and which scale can run, on any node.

Standard library alone, so that it also runs where nothing is installed: `PYTHONPATH=workflow python3 -m ngrpo.doctor`.
It starts nothing but nvidia-smi, nvcc and sinfo, and asks the hub whether it answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ngrpo.doctor import environments, machine, outside
from ngrpo.doctor.checks import ON_GPUS, SCALES, Diagnosis, scales_of
from ngrpo.doctor.gpu_report import proved, read_report, report_text
from ngrpo.errors import UserError, name_hint
from ngrpo.terminal import echo, printable

if TYPE_CHECKING:
    from ngrpo.study.expand import Study
    from ngrpo.study.layout import Results

DESCRIPTION = "What is there, what is missing, and which scale can run, on any node."
ENVS = Path(__file__).resolve().parents[3] / "envs"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="ngrpo doctor", description=DESCRIPTION)
    options.add_argument("--scale", default="toy", help="exit code 0 if it can run (default: toy)")
    folder = "folder (venv or conda prefix), 'deployed' for this program's own, 'elsewhere' if not on this node"
    options.add_argument("--workflow", default=".venv", help=f"the workflow environment: {folder}")
    options.add_argument("--train", default=".venv-train", help=f"the training environment: {folder}")
    options.add_argument("--data-folder", type=Path, help="your problem files, for data sets of kind `folder`")
    options.add_argument("--config", type=Path, default=Path("config"), help="the study's configuration")
    options.add_argument("--results", type=Path, default=Path("results"), help="where results go")
    options.add_argument("--gpu-report", type=Path, metavar="FILE", help="show this report of the kit for GPU nodes")
    return options


def examine(options: argparse.Namespace, envs: Path = ENVS) -> list[Diagnosis]:
    """Everything that was looked at, in order."""
    node = [machine.cores(), machine.memory(), machine.shared_memory()]
    checks = [machine.python(), *node, machine.disk(options.results, disk_needs(options.config, options.results))]
    workflow, _, _ = environments.environment("workflow", options.workflow, [envs / "workflow.lock"])
    locks = [envs / f"train-{name}.lock" for name in ("cpu", "gpu", "gpu-current")]
    train, lock, have = environments.environment("train", options.train, locks)
    checks += workflow + train + (environments.stack(have, lock) if have else [])
    gpu, fits = machine.gpus()
    slurm, cluster = outside.slurm()
    if not fits and not cluster and not gpu.stops:
        gpu = Diagnosis(gpu.what, gpu.state, "single and paper need GPUs, here or through SLURM", ON_GPUS)
    if cluster and not fits:  # a login node: what it lacks itself, the jobs' nodes may have
        checks = [replace(c, stops=tuple(s for s in c.stops if s not in ON_GPUS)) if c in node else c for c in checks]
        gpu = Diagnosis(gpu.what, gpu.state, "on a node of the cluster that has GPUs, run ngrpo doctor again")
    checks += [gpu, *([machine.token_budgets()] if fits else []), *([machine.compiler()] if "paper" in fits else [])]
    checks.append(slurm)
    if not (options.config / "scales").is_dir():
        return [
            *checks,
            Diagnosis("configuration", f"none in {options.config}", "run it in the project's folder", SCALES),
        ]
    try:
        return [
            *checks,
            outside.hub(options.config, options.results),
            outside.data_folder(options.config, options.results, options.data_folder),
            *decisions(options.config, options.results),
        ]
    except ImportError:
        return [*checks, Diagnosis("sources", "not looked at: this Python has no yaml", "run .venv/bin/ngrpo doctor")]


def decisions(config: Path, results: Path) -> list[Diagnosis]:
    """A line for each scale that gives verdicts: what its training seeds can decide, at what price; none without the
    packages."""
    try:
        from ngrpo.planning.costs import Costs
        from ngrpo.planning.power import Planner
        from ngrpo.planning.power_text import decidable
        from ngrpo.study.expand import load_study
        from ngrpo.study.layout import Results
    except ImportError:
        return []
    lines = []
    for scale in scales_of(config):
        try:
            study, files = load_study(config, scale, results / scale), Results(results / scale)
            said = decidable(Planner(study, Costs(study, files)))
        except UserError:  # a broken configuration: Snakemake says what is wrong with it
            continue
        if said:
            do = f"before it is spent: ngrpo power --scale {scale}"
            lines.append(Diagnosis(f"verdicts of {scale}", f"decided by its seeds: {said}", do))
    return lines


def disk_needs(config: Path, results: Path) -> dict[str, tuple[float, float]]:
    """Of each scale: bytes still to come with one training at a time, and with all; empty without the packages."""
    try:
        from ngrpo.planning.costs import Costs
        from ngrpo.planning.disk import room
        from ngrpo.study.expand import load_study
        from ngrpo.study.layout import Results
    except ImportError:
        return {}
    needs = {}
    for scale in scales_of(config):
        try:
            study, files = load_study(config, scale, results / scale), Results(results / scale)
            left = room(study, Costs(study, files), **_lacking(study, files))
        except UserError:  # a broken configuration: Snakemake says what is wrong with it
            continue
        needs[scale] = (left.one, left.many)
    return needs


def _lacking(study: Study, files: Results) -> dict[str, list[str]]:
    """What of a study isn't made yet."""
    return {
        "models": [name for name in study.models if not files.model(name).card.exists()],
        "runs": [name for name in study.runs if not files.run(name).model_card.exists()],
        "evaluations": [name for name in study.evaluations if not files.evaluation(name).samples.exists()],
    }


def verdicts(checks: Sequence[Diagnosis], scales: Sequence[str] = SCALES) -> dict[str, list[str]]:
    """What stops each scale; one of the user's own is stopped by what stops the smallest, too."""
    least = {scale: {scale} if scale in SCALES else {scale, SCALES[0]} for scale in scales}
    return {scale: [c.what for c in checks if least[scale] & set(c.stops)] for scale in scales}


def show_report(path: Path) -> int:
    """Print a report of the kit for GPU nodes; 0 if all of it passed on a card, else 1."""
    try:
        report = read_report(path)
    except UserError as error:  # said here, since `python -m ngrpo.doctor` has no other place for it
        echo(f"{error.label}: {error}", err=True)
        return 1
    echo(report_text(report))
    return 0 if proved(report) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for everything, then what each scale lacks; 0 if the asked scale can run, else 1.

    With `--gpu-report` that report instead; 0 if all of it passed on a card.
    """
    options = parser().parse_args(arguments)
    if options.gpu_report is not None:
        return show_report(options.gpu_report)
    scales = scales_of(options.config)
    if options.scale not in scales:
        hint = name_hint(options.scale, scales)
        parser().error(f"there is no scale '{options.scale}' in {options.config / 'scales'}: {hint}")
    checks = examine(options)
    echo("what | state | do")
    for check in checks:
        echo(printable(check))
    echo()
    stopped = verdicts(checks, scales)
    for scale, reasons in stopped.items():
        echo(
            f"{scale}: {'no: ' + ', '.join(reasons) if reasons else 'can run'}{' <' if scale == options.scale else ''}"
        )
    if options.scale not in SCALES:
        echo(f"What '{options.scale}' takes of memory and GPUs isn't known here: compare it with those above.")
    return 1 if stopped[options.scale] else 0
