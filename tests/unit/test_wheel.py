"""A built wheel holds what the package's folder holds: templates, stubs and py.typed, too."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from source_tree import PACKAGE, ROOT

pytestmark = pytest.mark.train  # its setuptools knows license expressions


def build(folder: Path, project: str) -> set[str]:
    """The names of the files in the wheel of the package with this pyproject.toml."""
    shutil.copytree(PACKAGE.parent, folder / "workflow", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    program = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}


def package_files() -> set[str]:
    """Every file of the package."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(PACKAGE.parent)) for path in files}


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    assert build(tmp_path, (ROOT / "pyproject.toml").read_text(encoding="utf-8")) == package_files()


def test_a_wheel_without_templates_would_be_seen(tmp_path: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    spoiled = project.replace('"ngrpo.report" = ["templates/*.j2"]', "")
    assert spoiled != project
    missing = package_files() - build(tmp_path, spoiled)
    assert missing
    assert {Path(name).parent.name for name in missing} == {"templates"}
