"""Starting a training: what must not have happened before."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.train


def imported_with(module: str) -> bool:
    """Whether importing this module of the package brings Ray along."""
    pytest.importorskip("ray")
    code = f"import sys, {module}; print('ray' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    """Ray reads its settings (the token that closes it to others) when it is imported; `train` sets them first."""
    assert not imported_with("ngrpo.training.launch")


def test_an_early_import_would_be_seen() -> None:
    assert imported_with("ngrpo.training.verl.trainer")
