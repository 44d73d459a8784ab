"""Which tests belong to which environment: a module marked `train` runs in .venv-train, every other in .venv."""

from importlib.util import find_spec
from pathlib import Path

TRAINING = find_spec("torch") is not None
_left: list[str] = []


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
