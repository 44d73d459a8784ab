"""Second half of `gpu-kit/run`: the steps, each a process with a time limit; the report and its page after each.

A step that fails or takes too long ends alone. Run again, it goes on: what has passed isn't done twice.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

from gpu_kit.page import write_page
from gpu_kit.parts import read_manifest, sha256
from gpu_kit.steps import FIGURES, PYTHON, STEPS, Step
from ngrpo.doctor.gpu_report import (
    CARD,
    CPU,
    FAILED,
    FORMAT,
    NOT_RUN,
    PASSED,
    TIMED_OUT,
    VERSION,
    counts,
    node_line,
    read_report,
    write_report,
)  # fmt: skip
from ngrpo.errors import UserError, unknown_name
from ngrpo.terminal import echo, escaped

PACKAGES = ("sglang", "verl", "transformers", "ray", "triton", "numpy", "flashinfer-python", "sgl-kernel", "flash-attn")
SAID = 4000
"""Characters of a step's output that the report keeps; all of it is in the logs beside."""
AT_LEAST = 20.0
"""Seconds that a step must have."""


def node_facts() -> dict:
    """What the report says of the node: card, driver, versions. No host names."""
    import torch

    card = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        card = {
            "name": properties.name,
            "memory_mib": properties.total_memory // 2**20,
            "driver": _driver(),
            "cuda": str(torch.version.cuda),
            "capability": f"{properties.major}.{properties.minor}",
        }
    return {
        "card": card,
        "cards": torch.cuda.device_count(),
        "cores": len(os.sched_getaffinity(0)),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _driver() -> str:
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not there"


def not_run(step: Step, card: bool, reason: str) -> dict:
    """The row of a step that wasn't run."""
    return _row(step, card, NOT_RUN, 0.0, "", reason=reason)


def _row(
    step: Step, card: bool, state: str, seconds: float, said: str, *, reason: str = "", figures: Sequence[dict] = ()
) -> dict:
    return {
        "name": step.name,
        "title": step.title,
        "state": state,
        "on": CARD if card and not step.hide_card else CPU,
        "seconds": round(seconds, 1),
        "command": shlex.join(
            part.replace(PYTHON, "python").replace(FIGURES, f"{step.name}.figures") for part in step.command
        ),
        "reason": reason,
        "figures": list(figures),
        "said": escaped(said[-SAID:]),
    }


def run_step(step: Step, card: bool, limit: float, folder: Path) -> dict:
    """Run a step in a process group of its own, ended after `limit` seconds; its row of the report."""
    figures, log = folder / f"{step.name}.figures", folder / f"{step.name}.log"
    figures.unlink(missing_ok=True)
    command = [part.replace(PYTHON, sys.executable).replace(FIGURES, str(figures)) for part in step.command]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"} | step.environment
    if step.hide_card:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
    seconds = time.monotonic() - began
    said = log.read_text(encoding="utf-8", errors="replace")
    found, problem = read_figures(step, figures)
    if code is None:
        return _row(step, card, TIMED_OUT, seconds, said, reason=f"ended after {limit:.0f} s", figures=found)
    unmet = [figure["what"] for figure in found if figure["met"] is False]
    reason = problem or ("; ".join(unmet) if unmet else "" if code == 0 else f"exit code {code}")
    return _row(step, card, FAILED if reason else PASSED, seconds, said, reason=reason, figures=found)


def _end_group(process: subprocess.Popen) -> None:
    """End what the step started, engines and Ray included; a step that ended has often ended them itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_figures(step: Step, path: Path) -> tuple[list[dict], str]:
    """A step's figures, and what is wrong with them."""
    if not path.exists():
        return [], "it wrote no figures"
    if not step.tests:
        return json.loads(path.read_text(encoding="utf-8")), ""
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    passed = int(suite.get("tests", 0)) - failed - skipped
    rows = [("tests passed", passed, "1 or more", passed > 0), ("tests failed", failed, "0", failed == 0)]
    rows += [("tests skipped: not for this node", skipped, "", None)] if skipped else []
    return [
        {"what": what, "value": value, "unit": "", "wanted": wanted, "met": met} for what, value, wanted, met in rows
    ], ""


def chosen(only: str) -> tuple[Step, ...]:
    """The steps to run. Raises UserError for a name that there isn't."""
    names = [name for name in only.split(",") if name]
    known = {step.name: step for step in STEPS}
    for name in names:
        if name not in known:
            raise unknown_name("step", name, known, where="--only")
    return tuple(step for step in STEPS if not names or step.name in names)


def begin(path: Path, manifest: dict, digest: str, node: dict) -> dict:
    """The report to go on with: that of an earlier call of this kit on such a node, or a new one.

    Raises UserError where the report that is there is of another kit or node.
    """
    kit = {"digest": digest, **{key: manifest[key] for key in ("made", "commit", "python", "torch")}}
    fresh = {
        "format": FORMAT, "version": VERSION, "kit": kit, "command": shlex.join(["gpu-kit/run"]),
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "node": node, "steps": [],
    }  # fmt: skip
    if not path.exists():
        return fresh
    earlier = read_report(path)
    if earlier["kit"]["digest"] != digest or earlier["node"] != node:
        raise UserError(
            "the report here is of another kit, card or set of packages",
            where=path,
            do="name another folder with --out, or move this one away",
        )
    return earlier


def run_all(
    report: dict, steps: tuple[Step, ...], folder: Path, deadline: float | None, rest: tuple[Step, ...] = STEPS
) -> None:
    """Run what hasn't passed yet, in order; the report and its page are written after each."""
    card = report["node"]["card"] is not None
    rows = {row["name"]: row for row in report["steps"]}
    stopped = ""
    for step in rest:
        expected = step.expected(card)
        earlier = rows.get(step.name)
        left = deadline - time.monotonic() if deadline is not None else float("inf")
        if earlier is not None and earlier["state"] == PASSED:
            continue
        if expected is None:
            rows[step.name] = not_run(step, card, "it needs a card, and there is none")
        elif step not in steps:
            rows.setdefault(step.name, not_run(step, card, "not asked for"))
        elif stopped or expected > left or left < AT_LEAST:
            stopped = stopped or f"{max(0, left):.0f} s were left of the minutes given, it takes about {expected:.0f}"
            if earlier is None or earlier["state"] == NOT_RUN:
                rows[step.name] = not_run(step, card, stopped if expected > left else "one before it didn't fit")
        else:
            echo(f"[kit] {step.name}: {step.title} (about {expected:.0f} s)")
            rows[step.name] = run_step(step, card, min(2 * expected, left), folder)
            _tell(rows[step.name])
        report["steps"] = [rows[s.name] for s in rest if s.name in rows]
        write_report(folder / "gpu-report.json", report)
        write_page(folder / "index.html", report)


def _tell(row: dict) -> None:
    echo(f"[kit] {row['name']}: {row['state']} in {row['seconds']:.0f} s{': ' if row['reason'] else ''}{row['reason']}")


def main() -> int:
    """Run the steps; 0 if each that this node can run has passed."""
    options = argparse.ArgumentParser(prog="gpu_kit.runner")
    options.add_argument("kit", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--began", type=float, required=True)
    options.add_argument("--minutes", type=float)
    options.add_argument("--only", default="")
    options.add_argument("--steps", action="store_true")
    given = options.parse_args()
    try:
        steps = chosen(given.only)
        node = node_facts()
        card = node["card"] is not None
        if given.steps:
            for step in steps:
                expected = step.expected(card)
                echo(f"{step.name}: {step.title} ({'needs a card' if expected is None else f'about {expected:.0f} s'})")
            return 0
        given.out.mkdir(parents=True, exist_ok=True)
        report = begin(
            given.out / "gpu-report.json", read_manifest(given.kit), sha256(given.kit / "manifest.json"), node
        )
        report["command"] = shlex.join(
            ["gpu-kit/run", *(["--minutes", f"{given.minutes:g}"] if given.minutes else []),
             *(["--only", given.only] if given.only else [])]
        )  # fmt: skip
        echo(f"[kit] {node_line(report)}")
        run_all(report, steps, given.out, None if given.minutes is None else given.began + 60 * given.minutes)
    except UserError as error:
        echo(f"{error.label}: {error}", err=True)
        return 2
    echo(f"[kit] {counts(report)}: {given.out / 'gpu-report.json'}, {given.out / 'index.html'}")
    return int(any(row["state"] in (FAILED, TIMED_OUT) for row in report["steps"]))


if __name__ == "__main__":
    sys.exit(main())
