"""Fixtures of the contract's tests: tiny models, and each engine in turn."""

from pathlib import Path

import pytest
from one_card import one_card
from tiny_models import tiny_model, tiny_table

__all__ = ["one_card"]

SGLANG = pytest.param("sglang", marks=pytest.mark.engine)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory):
    """Make each tiny model once: models(family, tied, seed) → (folder, table's path)."""
    made: dict[tuple, tuple[Path, Path]] = {}

    def get(family: str = "qwen2", tied: bool = False, seed: int = 0) -> tuple[Path, Path]:
        key = (family, tied, seed)
        if key not in made:
            home = tmp_path_factory.mktemp(f"{family}-{'tied' if tied else 'untied'}-{seed}")
            folder = tiny_model(home / "model", family=family, tied=tied, seed=seed)
            made[key] = folder, tiny_table(folder, home / "neighbors.safetensors")
        return made[key]

    return get


@pytest.fixture(params=["transformers", SGLANG])
def engine(request: pytest.FixtureRequest):
    """Each engine in turn: the test module's own fixture of that name."""
    return request.getfixturevalue(request.param)
