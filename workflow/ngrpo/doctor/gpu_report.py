"""`gpu-report.json`: what the kit for GPU nodes (`make gpu-kit`) found on a node, step by step. Standard library alone.

The kit writes it after each step, so that a run that was cut off leaves a whole report of what was done. Who reads one
that others made finds that it is one, and that it doesn't contradict itself: where no card was there, nothing can have
run on one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import whole_file
from ngrpo.foreign import parse_json, read_text
from ngrpo.terminal import quoted, text_table

FORMAT, VERSION = "ngrpo-gpu-report", 1
PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"
STATES = (PASSED, FAILED, TIMED_OUT, NOT_RUN)
CARD, CPU = "card", "CPU"
NO_CARD = "no card: CPU half only. Nothing in this report says anything of a GPU."
MOST_BYTES = 2**24

_NUMBER, _TEXT, _NONE = (int, float), str, type(None)
_TOP: dict[str, Any] = {
    "format": _TEXT, "version": int, "kit": dict, "command": _TEXT, "began": _TEXT, "node": dict, "steps": list,
}  # fmt: skip
_KIT: dict[str, Any] = {"digest": _TEXT, "made": _TEXT, "python": _TEXT, "torch": _TEXT}
_NODE: dict[str, Any] = {"card": (dict, _NONE), "cards": int, "python": _TEXT, "torch": _TEXT, "packages": dict}
_CARD: dict[str, Any] = {"name": _TEXT, "memory_mib": _NUMBER, "driver": _TEXT, "cuda": _TEXT}
_STEP: dict[str, Any] = {
    "name": _TEXT, "title": _TEXT, "state": _TEXT, "on": _TEXT, "seconds": _NUMBER, "command": _TEXT, "reason": _TEXT,
    "figures": list, "said": _TEXT,
}  # fmt: skip
_FIGURE: dict[str, Any] = {
    "what": _TEXT, "value": (*_NUMBER, _TEXT), "unit": _TEXT, "wanted": _TEXT, "met": (bool, _NONE),
}  # fmt: skip


def read_report(path: Path) -> dict[str, Any]:
    """A report. Raises UserError where the file is none, of another version, not whole, or contradicts itself."""
    report: dict[str, Any] = parse_json(read_text(path, MOST_BYTES), path)
    check_report(report, path)
    return report


def check_report(report: object, where: object) -> None:
    """Raise UserError unless all of a report is there, of its type, and free of contradictions."""
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise UserError("this file is no report of the kit for GPU nodes", where=where, do="name a gpu-report.json")
    if report.get("version") != VERSION:
        what = f"the report is of version {quoted(report.get('version'))}, this program reads {VERSION}"
        raise UserError(what, where=where, do="read it with the version of ngrpo that made its kit")
    _has(report, _TOP, where)
    _has(report["kit"], _KIT, f"{where}: kit")
    node = report["node"]
    _has(node, _NODE, f"{where}: node")
    if node["card"] is not None:
        _has(node["card"], _CARD, f"{where}: node.card")
    seen: set[str] = set()
    for number, step in enumerate(report["steps"], 1):
        at = f"{where}: step {number}"
        _has(step, _STEP, at)
        if step["state"] not in STATES:
            raise unknown_name("state of a step", step["state"], STATES, where=at)
        if step["name"] in seen:
            raise UserError(f"the step '{quoted(step['name'])}' is there twice", where=at)
        seen.add(step["name"])
        for figure in step["figures"]:
            _has(figure, _FIGURE, f"{at}: figures")
        ran = step["state"] != NOT_RUN
        if ran and step["on"] == CARD and node["card"] is None:
            raise UserError("a step ran on a card, and the node had none: the report contradicts itself", where=at)
        if step["state"] == PASSED and any(figure["met"] is False for figure in step["figures"]):
            raise UserError("a step passed, and a figure of it isn't what is wanted", where=at)


def _has(value: object, keys: Mapping[str, Any], where: object) -> None:
    if not isinstance(value, dict):
        raise UserError("an object is missing", where=where)
    for key, kind in keys.items():
        if key not in value:
            raise UserError(f"'{key}' is missing", where=where)
        if not isinstance(value[key], kind) or (isinstance(value[key], bool) and kind is not _FIGURE["met"]):
            raise UserError(f"'{key}' is of another type than a report's: {quoted(value[key])}", where=where)


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write it, whole or not at all; what can't be read again isn't written."""
    check_report(report, path)
    with whole_file(path) as part:
        part.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def node_line(report: Mapping[str, Any]) -> str:
    """What it ran on, in one line; without a card, that nothing is said of one."""
    node, card = report["node"], report["node"]["card"]
    versions = f"Python {node['python']}, torch {node['torch']}"
    if card is None:
        return f"{NO_CARD} ({versions})"
    count = f"{node['cards']} × " if node["cards"] > 1 else ""
    memory = f"{card['memory_mib'] / 1024:.0f} GiB"
    return f"{count}{card['name']}, {memory}, driver {card['driver']}, CUDA {card['cuda']}, {versions}"


def counts(report: Mapping[str, Any]) -> str:
    """How many of its steps ended how."""
    states = [step["state"] for step in report["steps"]]
    return ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states) or "no step"


def figure_text(figure: Mapping[str, Any]) -> str:
    """A figure with its unit: 3.4e-05 nats."""
    value = figure["value"]
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{shown} {figure['unit']}".strip()


def report_text(report: Mapping[str, Any]) -> str:
    """A report for the terminal: what it ran on, then its steps with their figures."""
    rows: list[list[str]] = []
    for step in report["steps"]:
        where = step["on"] if step["state"] != NOT_RUN else ""
        rows.append([step["title"], step["state"], where, step["reason"], ""])
        rows += [[f"  {f['what']}", "", "", figure_text(f), f["wanted"]] for f in step["figures"]]
    table = text_table(["step", "state", "on", "found", "wanted"], rows, [70, 10, 4, 60, 20])
    kit = report["kit"]
    return (
        f"{node_line(report)}\n{counts(report)}; begun {report['began']}, kit of {kit['made']} for Python "
        f"{kit['python']} and torch {kit['torch']}\n\n{table}"
    )


def proved(report: Mapping[str, Any]) -> bool:
    """Whether every step passed, on a card where it needs one."""
    return report["node"]["card"] is not None and all(step["state"] == PASSED for step in report["steps"])
