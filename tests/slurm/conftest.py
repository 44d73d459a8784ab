"""One mini-SLURM and one clone of the project for all tests here; the toy study is run once, undisturbed."""

import signal
from collections.abc import Iterator

import pytest
from clone import Clone, without_times
from mini import CannotRun, MiniSlurm


def pytest_configure() -> None:
    """A test run that is told to end stops its SLURM first."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniSlurm]:
    """A running SLURM."""
    try:
        with MiniSlurm(tmp_path_factory.mktemp("slurm")) as mini:
            yield mini
    except CannotRun as e:
        pytest.exit(str(e), returncode=3)


@pytest.fixture(scope="session")
def clone(slurm: MiniSlurm, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone after `snakemake --profile slurm all`."""
    clone = Clone(tmp_path_factory.mktemp("clone") / "ngrpo", slurm)
    assert clone.snakemake("all") == 0, clone.output[-8000:]
    return clone


@pytest.fixture(scope="session")
def reference(clone: Clone) -> tuple[bytes, list[dict]]:
    """The undisturbed run: its weights and its metrics without times."""
    return clone.weights(), without_times(clone.metrics())
