"""What CI does with tests that a machine may be unable to run: they pass, fail, or are visibly not run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_study import ROOT

TESTS = """
import pytest
def test_passes(): pass
def test_fails(): assert False
def test_cannot(): pytest.exit("there is no browser", 3)
def test_ends(): pytest.exit("ended", 4)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this one's tests/conftest.py and a make target for each test."""
    shutil.copy2(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS)
    lines = [f"%:\n\t{sys.executable} -m pytest -q -p no:cacheprovider test_some.py::test_$@\n", "broken:\n\texit 3\n"]
    (tmp_path / "Makefile").write_text("".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [("passes", 0, None), ("fails", 2, None), ("ends", 2, None), ("broken", 2, None),
     ("cannot", 0, "NOT RUN: make cannot: there is no browser")],
)  # fmt: skip
def test_only_what_cannot_run_is_let_through_and_said(
    project: Path, target: str, status: int, message: str | None
) -> None:
    ended = subprocess.run(
        [ROOT / ".ci" / "optional", target], cwd=project, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == status, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line.startswith("NOT RUN")] == ([message] if message else [])
