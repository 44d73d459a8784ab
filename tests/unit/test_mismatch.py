"""Rounding stops no run, and what is systematic stops it: the guard's arithmetic on made-up steps."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ngrpo.errors import UserError
from ngrpo.statistics.mismatch import LIMITS, WARN, faults, limits_of, measured, nearly_stopped

BFLOAT16 = LIMITS["bfloat16"]


def step(noise: float = 0.03, tail: float = 1e-3, *, rho: float = 0.1, seed: int = 0):
    """A step of 256 responses of 190 tokens: rollout's log-probs, trainer's, written, mixed, with tails to 10 nats."""
    rng = np.random.default_rng(seed)
    shape = (256, 190)
    log_prob = -rng.exponential(0.4, shape) * (rng.random(shape) < 0.6)
    d = rng.laplace(0, noise, shape)
    size = np.exp(rng.uniform(np.log(0.5), np.log(10), shape)) * rng.choice([1, 1, 1, -1], shape)
    d = np.where(rng.random(shape) < tail, size, d)
    written = np.arange(190) < rng.integers(60, 191, (256, 1))
    mixed = written & (rng.random(shape) < rho)
    mixed[:, 0] = False
    return log_prob, log_prob - d, written, mixed


def test_measures_are_what_their_names_say() -> None:
    rollout, trainer, written, mixed = step()
    values, d = measured(rollout, trainer, written, mixed), (rollout - trainer)[written]
    assert values["parity/mean"] == pytest.approx(np.abs(d).mean())
    assert values["parity/max"] == pytest.approx(np.abs(d).max())
    assert values["parity/q0.999"] == pytest.approx(np.quantile(np.abs(d), 0.999))
    assert values["rollout_corr/kl"] == pytest.approx(d.mean())
    assert values["rollout_corr/k3_kl"] == pytest.approx((np.exp(-d) + d - 1).mean(), rel=1e-6)
    assert values["rollout_corr/rollout_is_ratio_fraction_high"] == pytest.approx((d < -np.log(2)).mean())
    ratio = np.exp(-d).clip(max=2)
    assert values["rollout_corr/rollout_is_eff_sample_size"] == pytest.approx(ratio.mean() ** 2 / (ratio**2).mean())
    first = np.logical_or.accumulate(mixed, -1)
    assert values["parity/before_mixing"] == pytest.approx(np.abs(rollout - trainer)[written & ~first].mean())
    again = measured(np.where(written, rollout, 77.0), np.where(written, trainer, -5.0), written, mixed)
    assert again == pytest.approx(values)  # padding counts for nothing


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.03, 0.064])
def test_healthy_rounding_stops_nothing_and_warns_of_nothing(noise: float) -> None:
    for seed in range(8):
        values = measured(*step(noise, rho=[0.0, 0.1, 0.5, 1.0][seed % 4], seed=seed))
        assert faults(values, BFLOAT16, [values["parity/mean"] / 1.5], WARN) == []
    assert faults(values, LIMITS["float32"]) != []  # the control


def test_what_is_systematic_is_said_by_its_kind() -> None:
    rollout, trainer, written, mixed = step()
    hotter = faults(measured(rollout, rollout * 0.7 - (rollout - trainer), written, mixed), BFLOAT16)
    assert any("temperature" in what for what in hotter)
    unmixed = trainer - mixed * np.random.default_rng(1).exponential(0.1, mixed.shape)
    assert any("after a mixed input" in what for what in faults(measured(rollout, unmixed, written, mixed), BFLOAT16))
    values = measured(rollout, trainer, written, mixed)
    assert any("as before" in what for what in faults({**values, "parity/mean": 0.12}, BFLOAT16, [0.03] * 9))
    assert any("on average (limit" in what for what in faults({**values, "parity/mean": 0.3}, BFLOAT16))
    assert faults(values, BFLOAT16, [0.03] * 9) == []


def test_where_every_step_mixes_first_tokens_are_no_yardstick() -> None:
    rollout, trainer, written, mixed = step(rho=1.0)
    trainer[:, 0] = rollout[:, 0]
    assert measured(rollout, trainer, written, mixed)["parity/mixed_ratio"] == 1


def test_a_float32_run_has_its_own_limit_and_an_unknown_dtype_none() -> None:
    assert limits_of("float32").largest == 1e-3
    assert limits_of("float32", 5e-3).largest == 5e-3
    assert limits_of("bfloat16", 5e-3) == BFLOAT16
    with pytest.raises(UserError, match="dtype"):
        limits_of("float8")
    values = {"parity/mean": 1e-6, "parity/max": 2e-3}
    assert "largest difference" in faults(values, limits_of("float32"))[0]
    assert faults(values, limits_of("float32", 5e-3)) == []


def test_a_mixed_input_that_the_model_did_not_read_is_a_fault_by_itself() -> None:
    """Whatever the log-probs say, and warned of from half of its limit on."""
    for dtype, limit in (("bfloat16", 0.05), ("float32", 0.005)):
        limits = limits_of(dtype, 5e-3)
        values = {"parity/mean": 1e-6, "parity/max": 1e-5, "parity/input_deviation": 0.4 * limit}
        assert faults(values, limits) == faults(values, limits, share=WARN) == []
        warned = {**values, "parity/input_deviation": 0.6 * limit}
        assert faults(warned, limits) == []
        assert "what the engine's model read" in nearly_stopped(warned, limits)
        for off in (1.1 * limit, float("inf"), float("nan")):
            (what,) = faults({**values, "parity/input_deviation": off}, limits)
            assert "what the engine's model read" in what


def test_nan_is_beyond_every_limit() -> None:
    values = {"parity/mean": float("nan"), "parity/max": float("nan"), "parity/temperature": float("nan")}
    assert len(faults(values, BFLOAT16)) == 2
    assert faults(values, LIMITS["float32"])


def test_a_warning_comes_before_the_stop() -> None:
    row = json.loads(json.dumps({**measured(*step()), "step": 3}))
    assert nearly_stopped(row, BFLOAT16) == ""
    assert "on average" in nearly_stopped({**row, "parity/mean": 0.2}, BFLOAT16)
    assert nearly_stopped({**row, "parity/mean": 0.2}, None) == ""  # its noise is drawn anew
    assert faults({**row, "parity/mean": 0.2}, BFLOAT16) == []


def test_measured_rounding_stops_nothing_and_another_temperature_does() -> None:
    """A small part of `make simulate-mismatch`, of what these statistics find in every step of 256 responses."""
    path = Path(__file__).parents[2] / "benchmarks" / "mismatch.py"
    spec = importlib.util.spec_from_file_location("simulation", path)
    simulation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simulation)
    rng = np.random.default_rng(2)
    assert not any(simulation.wrong_table(rng, share=0) for _ in range(3))
    assert simulation.hotter(rng)
    assert not simulation.hotter(rng, other=0.7)
    parts = [simulation.rounding((256, 200), mean, rng) for mean in simulation.MEANS]
    for d in parts:
        values = simulation.values_of(-np.abs(d), -np.abs(d) - d, np.ones(d.shape, bool), rng.random(d.shape) < 0.1)
        assert [what for what in faults(values, BFLOAT16) if "on average" in what or "mixed" in what] == []
