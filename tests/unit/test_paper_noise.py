"""What two runs differ by through chance alone: computed in closed form, simulated here with seeds."""

import numpy as np
import pytest
import yaml
from scipy.special import expit
from synthetic_study import ROOT

from ngrpo.audit.paper_noise import (
    SAME_WEIGHTS,
    RunNoise,
    chance_of,
    detectable,
    difference_deviation,
    log_odds,
    of_row,
)

RAW = yaml.safe_load((ROOT / "config" / "paper_values.yaml").read_text())
NAMES = ("aime25", "amc23", "math500")


def row(model: str, label: str = "GRPO"):
    return of_row(RAW["tables"]["table1"]["values"][model][label], RAW["sizes"], NAMES)


def averages(benchmarks, noise: RunNoise, studies: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Averages over benchmarks of one run in each of so many studies, by the release's own estimators."""
    run = rng.normal(0, noise.run, (studies, 1)) if noise.run else 0.0
    values = {"mean": 0.0, "pass@16": 0.0, "pass@32": 0.0}
    for benchmark in benchmarks:
        places = log_odds(benchmark, noise) + run + rng.normal(0, noise.own, (studies, benchmark.problems))
        correct = rng.binomial(32, expit(places))
        values["mean"] += correct.mean(1) / 32 / len(benchmarks)
        for k in (16, 32):
            seen = rng.binomial(1000, 1 - (1 - correct / 32) ** k) / 1000
            values[f"pass@{k}"] += seen.mean(1) / len(benchmarks)
    return values


@pytest.mark.parametrize(
    ("model", "noise"), [(m, RunNoise()) for m in RAW["tables"]["table1"]["values"]] + [("r1-qwen-1.5b", SAME_WEIGHTS)]
)
def test_the_deviation_is_that_of_simulated_studies(model: str, noise: RunNoise) -> None:
    rng, studies = np.random.default_rng(7), 1500
    one, other = (averages(row(model), noise, studies, rng) for _ in range(2))
    for metric in one:
        computed = difference_deviation(row(model), metric, noise)
        assert (one[metric] - other[metric]).std() == pytest.approx(computed, rel=0.07), metric
    printed = RAW["tables"]["table1"]["values"][model]["GRPO"]["Avg"]
    for metric in ("mean", "pass@32"):  # the fit
        assert 100 * one[metric].mean() == pytest.approx(printed[metric], abs=0.25), metric
    differs = difference_deviation(row(model), "pass@32", RunNoise(0.5, 1.0))
    assert (one["pass@32"] - other["pass@32"]).std() != pytest.approx(differs, rel=0.07)  # the control


def test_chance_alone_gives_the_headline_difference_in_about_one_study_of_five() -> None:
    rng, studies = np.random.default_rng(11), 4000
    one, other = (averages(row("r1-qwen-1.5b"), RunNoise(), studies, rng)["pass@32"] for _ in range(2))
    seen = float((one - other >= 0.0176).mean())
    computed = chance_of(0.0176, difference_deviation(row("r1-qwen-1.5b"), "pass@32"))
    assert computed == pytest.approx(0.18, abs=0.015)
    assert seen == pytest.approx(computed, abs=0.02)


def test_what_one_run_shows_is_shown_in_four_of_five_studies() -> None:
    deviation = 0.02
    effect = detectable(deviation)
    z = np.random.default_rng(3).normal(effect, deviation, 20_000) / deviation
    assert (np.abs(z) > 1.959964).mean() == pytest.approx(0.8, abs=0.01)
