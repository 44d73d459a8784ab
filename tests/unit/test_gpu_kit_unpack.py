"""A kit of the project alone, unpacked over this environment's torch; `make test-gpu-kit` does it with all packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

from gpu_kit import pack  # noqa: E402


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit whose packages are one file: what it would bring, this environment has."""
    out, packages, project = tmp_path / "gpu-kit", tmp_path / "packages", tmp_path / "project"
    out.mkdir()
    packages.mkdir()
    (packages / "brought.py").write_text("")
    pack.project(project)
    archives = [tmp_path / f"{folder.name}.tar.xz" for folder in (packages, project)]
    for folder, archive in zip((packages, project), archives, strict=True):
        pack.pack(folder, archive, preset=0)
    python, version = f"{sys.version_info[0]}.{sys.version_info[1]}", torch.__version__.split("+")[0]
    pack.finish(out, archives, python, version, pack.LOCK, largest=400_000)
    return out


def run(kit: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The kit's own `run`; what the caller's PYTHONPATH names must not be in its way."""
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    command = [kit / "run", "--work", kit.parent / "work", *arguments]
    return subprocess.run(command, env=environment, cwd=kit.parent, capture_output=True, text=True, check=False)


def test_a_kit_unpacks_over_the_nodes_torch_and_says_what_it_would_run(kit: Path) -> None:
    first = kit / "parts" / "project.tar.xz.01"
    content = first.read_bytes()
    first.unlink()
    lacking = run(kit, "--steps")
    assert (lacking.returncode, lacking.stdout) == (2, "")
    assert "project.tar.xz.01" in lacking.stderr
    assert "Traceback" not in lacking.stderr
    first.write_bytes(content)
    done = run(kit, "--steps")
    assert done.returncode == 0, done.stderr
    assert "replay: What was fed" in done.stdout
    assert "mixing-cost: Tokens a second with and without mixing, 1.5B shape (needs a card)" in done.stdout
    home = next((kit.parent / "work").glob("*/packages/brought.py")).parents[1]
    code = "import brought, gpu_kit, ngrpo; print(brought.__file__, gpu_kit.__file__, ngrpo.__file__)"
    python = home / "venv" / "bin" / "python"
    environment = {"PATH": os.environ["PATH"]}
    paths = subprocess.run(
        [python, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd="/"
    ).stdout.split()
    assert all(Path(path).is_relative_to(home) for path in paths)
    assert "is for Python" not in done.stderr
