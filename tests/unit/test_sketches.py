"""A sketch tells any other input from the one that was read, and rounding from neither."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

from ngrpo.method.sketches import SIZE, deviations, signs  # noqa: E402
from ngrpo.statistics.mismatch import LIMITS  # noqa: E402

N, D = 4000, 96


def vectors(seed: int = 0) -> torch.Tensor:
    """Made-up inputs (N, D)."""
    return 0.03 * torch.randn(N, D, generator=torch.Generator().manual_seed(seed))


def test_signs_are_the_same_everywhere_and_even() -> None:
    R = signs(D)
    assert R.shape == (D, SIZE)
    assert R.equal(signs(D))
    assert R.equal(signs(2 * D)[:D])
    assert R.abs().unique().tolist() == [1.0]
    assert (R.T @ R - D * torch.eye(SIZE)).abs().max() < D / 2
    assert signs(D, torch.bfloat16).float().equal(R)


def test_a_deviation_is_the_distance_on_average() -> None:
    x, R = vectors(), signs(D)
    for share in (0.01, 0.3, 2.0):
        other = x + share * vectors(1)
        squares = deviations(x, other @ R, R).square().mean()
        assert squares.sqrt() == pytest.approx(share, rel=0.1)


def test_rounding_is_within_half_the_limit_and_another_vector_is_beyond() -> None:
    """In bfloat16, read there and fed in float32 or bfloat16; the control: a vector that is a quarter off."""
    x, R = vectors(), signs(D)
    read = x.bfloat16() @ signs(D, torch.bfloat16)
    limit = LIMITS["bfloat16"].inputs
    for fed in (x, x.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            assert deviations(fed, read, R).max() < limit / 2
    assert (deviations(x + 0.25 * vectors(1), read, R) > limit).float().mean() > 0.99
    assert deviations(x, x @ R, R).max() < LIMITS["float32"].inputs / 10


def test_what_is_no_number_is_beyond_every_limit() -> None:
    R = signs(D)
    assert not (deviations(vectors()[:1], torch.full((1, SIZE), torch.nan), R) <= 1).any()


def test_measured_faults_are_found_in_a_step_and_rounding_is_not() -> None:
    """A small part of `make simulate-mismatch`: at a hundred mixed inputs, as a batch of `smoke` has."""
    path = Path(__file__).parents[2] / "benchmarks" / "sketches.py"
    spec = importlib.util.spec_from_file_location("simulation", path)
    assert spec is not None
    assert spec.loader is not None
    simulation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simulation)
    for fault in ("unmixed", "wrong_table"):
        assert simulation.power(fault, 100, np.random.default_rng(3)) > 0.99
        assert simulation.power(fault, 1, np.random.default_rng(3)) < 0.3
    stops = simulation.bound() * simulation.RUNS * simulation.STEPS * simulation.MIXED
    assert stops < 0.01
    assert 0 < simulation.largest(64, 10_000, torch.float32) < simulation.LIMIT / 4
