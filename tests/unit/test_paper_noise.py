"""What two runs differ by through chance alone: computed in closed form, simulated here with seeds."""

from functools import cache

import numpy as np
import pytest
import yaml
from scipy.special import expit
from synthetic_study import ROOT

from ngrpo.audit.paper_noise import chance_of, detectable, deviation_range, difference_deviation, of_row
from ngrpo.statistics.fitting import Scores, fitted
from ngrpo.statistics.pass_rates import DECLARED, NONE, LogitNoise

RAW = yaml.safe_load((ROOT / "config" / "paper_values.yaml").read_text())
NAMES = ("aime25", "amc23", "math500")
STUDIES = 1200


def rows(model: str, label: str = "GRPO") -> list[Scores]:
    return of_row(RAW["tables"]["table1"]["values"][model][label], RAW["sizes"], NAMES)


@cache
def differences(model: str, noise: LogitNoise) -> dict[str, np.ndarray]:
    """Differences of averages over benchmarks of two runs in each study, by the release's own estimators."""
    rng = np.random.default_rng(7)
    c, values = np.arange(33), {"mean": 0.0, "pass@16": 0.0, "pass@32": 0.0}
    runs = rng.normal(0, 1, (2, STUDIES, 1)) * noise.run
    for row in rows(model):
        own = float(np.hypot(noise.method_problem, noise.run_problem))
        base = fitted(row, noise).draw(rng, (STUDIES, row.problems))
        correct = rng.binomial(32, expit(base + runs + own * rng.normal(size=(2, STUDIES, row.problems))))
        values["mean"] = values["mean"] + correct.mean(-1) / 32 / len(NAMES)
        for k in (16, 32):
            chance = (1 - (1 - c / 32) ** k)[correct]
            # a sum of binomials of 1000 draws each: normal to the last digit that matters
            drawn = chance.mean(-1) + np.sqrt((chance * (1 - chance)).sum(-1) / 1000) / row.problems * rng.normal(
                size=(2, STUDIES)
            )
            values[f"pass@{k}"] = values[f"pass@{k}"] + drawn / len(NAMES)
    return {metric: v[0] - v[1] for metric, v in values.items()} | {f"{m} itself": v.mean() for m, v in values.items()}


@pytest.mark.parametrize(
    ("model", "noise"), [("r1-qwen-1.5b", DECLARED), ("llama3.2-1b", DECLARED), ("r1-qwen-1.5b", NONE)]
)
def test_the_deviation_is_that_of_simulated_studies(model: str, noise: LogitNoise) -> None:
    simulated = differences(model, noise)
    printed = RAW["tables"]["table1"]["values"][model]["GRPO"]["Avg"]
    for metric in ("mean", "pass@16", "pass@32"):
        computed = difference_deviation(rows(model), metric, noise)
        assert simulated[metric].std() == pytest.approx(computed, rel=0.08), metric
        assert 100 * simulated[f"{metric} itself"] == pytest.approx(printed[metric], abs=0.5), metric  # the fit
    differs = difference_deviation(rows(model), "pass@32", LogitNoise(0.5, 0.7, 0.7))
    assert simulated["pass@32"].std() != pytest.approx(differs, rel=0.08)  # the control


def test_chance_alone_gives_the_headline_difference_in_about_one_study_of_seven() -> None:
    computed = chance_of(0.0176, difference_deviation(rows("r1-qwen-1.5b"), "pass@32", DECLARED))
    assert computed == pytest.approx(0.15, abs=0.015)
    seen = differences("r1-qwen-1.5b", DECLARED)["pass@32"]
    assert float((np.abs(seen) >= 0.0176).mean()) / 2 == pytest.approx(computed, abs=0.02)


def test_every_shape_with_the_printed_scores_lies_between_the_ends() -> None:
    """A normal of log-odds fitted by hand, as an independent simulator had it, gives 18 %."""
    low, high = deviation_range(rows("r1-qwen-1.5b"), "pass@32", DECLARED)
    assert chance_of(0.0176, low) < 0.10 < 0.18 < chance_of(0.0176, high) < 0.25
    assert low < difference_deviation(rows("r1-qwen-1.5b"), "pass@32", DECLARED) < high


def test_what_one_run_shows_is_shown_in_four_of_five_studies() -> None:
    deviation = 0.02
    effect = detectable(deviation)
    z = np.random.default_rng(3).normal(effect, deviation, 20_000) / deviation
    assert (np.abs(z) > 1.959964).mean() == pytest.approx(0.8, abs=0.01)
