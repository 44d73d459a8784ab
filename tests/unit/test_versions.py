"""A cheap stage's fingerprint covers all code of ours that it is computed with: its imports are walked."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic_study import ROOT

from ngrpo.study import versions
from ngrpo.study.versions import BY_SPEC, CODE, NEUTRAL, code_of, fingerprint

PACKAGE = ROOT / "workflow" / "ngrpo"
ENTRY = {
    "dataset": ["data.datasets"],
    "training_data": ["stages.training_data"],
    "grade": ["grading.graded_files"],
    "analyze": ["report.tables"],
    "report": ["report.page"],
}
"""Where the command of a stage goes first; a notebook's are its own imports."""


def file_of(module: str) -> Path | None:
    """The source of a module of ngrpo, named below it; None where it is none."""
    path = PACKAGE.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


def imported(source: str) -> Iterator[str]:
    """The modules of ngrpo, named below it, that a source imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        yield from (n.removeprefix("ngrpo.") for n in names if n.startswith("ngrpo.") and file_of(n[len("ngrpo.") :]))


def used_by(modules: list[str]) -> set[str]:
    """These modules and all that they import, and the packages that they lie in."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module and module not in seen:
            seen.add(module)
            waiting += [*imported(file_of(module).read_text(encoding="utf-8")), module.rpartition(".")[0]]
    return seen


def entry_of(stage: str) -> list[str]:
    """The modules that a stage starts in."""
    if stage != "notebook":
        return ENTRY[stage]
    cells = [c for f in (ROOT / "notebooks").glob("*.ipynb") for c in json.loads(f.read_text())["cells"]]
    return [m for c in cells if c["cell_type"] == "code" for m in imported("".join(c["source"]))]


def uncovered(stage: str, parts: tuple[str, ...]) -> set[str]:
    """What a stage uses and neither these parts nor the exceptions that versions.py states cover."""
    covered = {*parts, *NEUTRAL, *(["study"] if stage in BY_SPEC else [])}
    packages = {"stages"}  # holds no code of its own
    used = used_by(entry_of(stage)) - packages
    return {m for m in used if not any(m == part or m.startswith(f"{part}.") for part in covered)}


@pytest.mark.parametrize("stage", CODE)
def test_a_fingerprint_covers_what_the_stage_uses(stage: str) -> None:
    assert uncovered(stage, CODE[stage]) == set()


@pytest.mark.parametrize("stage", CODE)
def test_each_part_of_a_fingerprint_is_used(stage: str) -> None:
    """The control: without any one of its parts the fingerprint is found lacking."""
    for part in CODE[stage]:
        assert uncovered(stage, tuple(p for p in CODE[stage] if p != part)), part


def test_code_that_is_edited_changes_its_stages_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grading/grader.py", "stages/training_data.py", "stages/samples.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "study" / "versions.py"))
    before = {part: fingerprint(part) for part in ("grading", "stages.training_data")}
    (tmp_path / "stages" / "samples.py").write_text("2")
    assert {part: fingerprint(part) for part in before} == before
    (tmp_path / "grading" / "grader.py").write_text("2")
    assert fingerprint("grading") != before["grading"]
    (tmp_path / "stages" / "training_data.py").write_text("2")
    assert fingerprint("stages.training_data") != before["stages.training_data"]


def test_every_part_that_is_named_is_there() -> None:
    for part in {*NEUTRAL, *(part for parts in CODE.values() for part in parts)}:
        assert file_of(part), part
    assert len({code_of(stage) for stage in ("dataset", "training_data", "grade", "report")}) == 4
