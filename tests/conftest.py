"""Which tests belong to which environment: a module marked `train` runs in .venv-train, every other in .venv. And how a
test run says that this machine can't do it: `pytest.exit(reason, 3)`. Fixtures and hooks only; helpers are modules."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

TRAINING = find_spec("torch") is not None
_left: list[str] = []

settings.register_profile("ngrpo", deadline=None)  # a busy machine is no error
settings.load_profile("ngrpo")


def _needs_training(path: Path) -> bool:
    return "pytest.mark.train" in path.read_text(encoding="utf-8")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave the other environment's modules to it; they can't even be imported here."""
    if collection_path.name.startswith("test_") and _needs_training(collection_path) != TRAINING:
        _left.append(collection_path.name)
        return True
    return None


def pytest_report_collectionfinish() -> str:
    """Say what was left to the other environment, so that nothing is skipped silently."""
    here, there = ("training", "workflow") if TRAINING else ("workflow", "training")
    return f"{here} environment; {len(_left)} modules run in the {there} environment (`make test` runs both)"


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo) -> None:
    """Write why these tests can't run on this machine to the file that NOT_RUN names (.ci/optional)."""
    stopped = excinfo.value
    if isinstance(stopped, pytest.exit.Exception) and stopped.returncode == 3 and "NOT_RUN" in os.environ:
        Path(os.environ["NOT_RUN"]).write_text(stopped.msg, encoding="utf-8")
