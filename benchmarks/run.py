"""`make bench`: run the benchmarks, print a table, keep results/bench.json.

A benchmark is a module beside this one. At its top level it has ENV, the environment it needs ("workflow" or "train"),
and rows(), which yields its rows (benchmarks/rows.py). Where its rows can be run singly it also has NAMES, the tuple of
their names, and rows(names). ENV and NAMES are read from the source, so that a module is only imported in its own
environment, in a process of its own. A run of all replaces the file; a run of some replaces only their rows.
"""

import argparse
import ast
import difflib
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "bench.json"
ENVIRONMENTS = {"workflow": ROOT / ".venv", "train": ROOT / ".venv-train"}
_ROW = "bench-row "


def declared(path: Path) -> dict[str, Any]:
    """ENV and NAMES of a module, without importing it; empty for a module without ENV, which is no benchmark."""
    constants = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("ENV", "NAMES"):
                constants[name] = ast.literal_eval(node.value)
    return {"NAMES": (), **constants} if "ENV" in constants else {}


def benchmarks() -> dict[str, dict[str, Any]]:
    """Module name → {ENV, NAMES}, in alphabetical order."""
    declarations = {path.stem: declared(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    return {module: facts for module, facts in declarations.items() if facts}


def chosen(modules: dict[str, dict[str, Any]], only: str) -> dict[str, list[str]]:
    """Module → names to run (none: all it has). `only`: a row's name, a module's name, or empty for all."""
    if not only:
        return {module: list(facts["NAMES"]) for module, facts in modules.items()}
    if only in modules:
        return {only: list(modules[only]["NAMES"])}
    named = {module: [name for name in facts["NAMES"] if name == only] for module, facts in modules.items()}
    named = {module: names for module, names in named.items() if names}
    if not named:
        known = sorted({*modules, *(name for facts in modules.values() for name in facts["NAMES"])})
        near = difflib.get_close_matches(only, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise SystemExit(f"there is no benchmark '{only}': {hint}")
    return named


def run_module(module: str, env: str, names: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a module, run in its environment, and whether it ended without an error."""
    python = ENVIRONMENTS[env] / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"benchmark {module} needs {ENVIRONMENTS[env].name}: run `make env` first")
    command = [str(python), "-W", "ignore", "-m", "benchmarks.run", "--inside", module, *names]
    rows = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith(_ROW):
                rows.append(json.loads(line[len(_ROW) :]))
                print(as_line(rows[-1]), flush=True)
            else:
                sys.stderr.write(line)
    return rows, process.returncode == 0


def run_inside(module: str, names: list[str]) -> None:
    """Print a module's rows as JSON lines, as they come."""
    produce = importlib.import_module(f"benchmarks.{module}").rows
    for row in produce(tuple(names)) if inspect.signature(produce).parameters else produce():
        if not names or row["name"] in names:
            print(_ROW + json.dumps(row), flush=True)


def as_line(row: dict[str, Any]) -> str:
    """A row of the printed table."""

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:,.4g}"

    return (
        f"{'yes' if row['met'] else 'NO':4}{row['name']:34}{cell(row['ours']):>10}{cell(row['peer']):>10} "
        f"{row['unit']:10}{cell(row['ratio']):>8}  {row['goal']:8} {row.get('note', '')}"
    )


def save(rows: list[dict[str, Any]], *, among_others: bool) -> None:
    """Write results/bench.json, whole or not at all; among_others: replace rows of the same name, keep the rest."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if among_others and RESULT.exists() else []
    merged = {row["name"]: row for row in [*before, *rows]}
    RESULT.parent.mkdir(exist_ok=True)
    part = RESULT.with_name(f".bench.{os.getpid()}")
    part.write_text(json.dumps(list(merged.values()), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, RESULT)


def main() -> int:
    """Exit code 1 where a benchmark failed to run; a missed goal is a result, not an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="?", default="", help="one row's or one module's name")
    parser.add_argument("--inside", nargs="+", metavar=("MODULE", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        run_inside(arguments.inside[0], arguments.inside[1:])
        return 0
    modules = benchmarks()
    print(f"{'met':4}{'benchmark':34}{'ours':>10}{'peer':>10} {'unit':10}{'ratio':>8}  {'goal':8} how")
    done, failed = [], []
    for module, names in chosen(modules, arguments.only).items():
        rows, ended_well = run_module(module, modules[module]["ENV"], names)
        done += rows
        save(done, among_others=bool(arguments.only))
        if not ended_well or not {row["name"] for row in rows} >= set(names):
            failed.append(module)
    print(f"saved {RESULT.relative_to(ROOT)}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
