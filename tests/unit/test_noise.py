"""The noise between runs is measured from finished ones: recovered where known, declared where there are few."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from synthetic_study import ROOT, make_study

from ngrpo.planning.costs import Costs
from ngrpo.planning.measured import measured_noise
from ngrpo.planning.power import Planner
from ngrpo.planning.power_text import decidable, power_text
from ngrpo.statistics.noise import LEAST_PROBLEMS, MeasuredNoise, enough, measure_noise
from ngrpo.statistics.pass_rates import DECLARED, LogitNoise
from ngrpo.study.layout import Results

MODEL = "r1-qwen-1.5b"
PARTS = ("run", "method_problem", "run_problem")


def samples(
    rng: np.random.Generator,
    noise: LogitNoise,
    effects: Sequence[float] = (0.0, 0.3),
    seeds: int = 3,
    sizes: Sequence[int] = (30, 40, 300),
    shared: float = 0.8,
) -> list[list[np.ndarray]]:
    """Samples of methods on benchmarks, a share of them drawn with the same random numbers by all of a seed."""
    runs, benchmarks = noise.run * rng.normal(size=(len(effects), seeds, 1)), []
    for size in sizes:
        base, uniform = rng.normal(0, 2, size), rng.uniform(size=(seeds, size, 32))
        methods = []
        for effect, run in zip(effects, runs, strict=True):
            own = base + effect + noise.method_problem * rng.normal(size=size)
            odds = own + run + noise.run_problem * rng.normal(size=(seeds, size))
            mine = np.where(rng.uniform(size=uniform.shape) < shared, uniform, rng.uniform(size=uniform.shape))
            methods.append((mine < expit(odds)[..., None]).astype(float))
        benchmarks.append(methods)
    return benchmarks


@pytest.mark.parametrize("noise", [DECLARED, LogitNoise(0.3, 0.1, 0.5), LogitNoise(0.0, 0.0, 0.0)])
def test_known_noise_is_recovered_within_the_range_that_is_stated(noise: LogitNoise) -> None:
    rng, studies = np.random.default_rng(1), 25
    measured = [measure_noise(samples(rng, noise)) for _ in range(studies)]
    for part in PARTS:
        true, spreads = getattr(noise, part), [getattr(m, part) for m in measured]
        assert sum(s.low <= true <= s.high for s in spreads) >= 0.8 * studies, part
        # variances are unbiased, standard deviations of few runs are not
        assert np.sqrt(np.mean([s.value**2 for s in spreads])) == pytest.approx(true, abs=0.06), part


def test_another_noise_lies_outside_of_the_range() -> None:
    measured = measure_noise(samples(np.random.default_rng(2), DECLARED, (0.0, 0.2, 0.1), seeds=6))
    assert measured.run.high < 0.4
    assert measured.run_problem.high < 0.45
    assert measured.run_problem.low > 0.2
    assert measured.method_problem.low > 0.15


def test_sample_seeds_that_runs_share_are_not_taken_for_runs_that_are_alike() -> None:
    """Negative control: counts alone, their noise taken for independent, would say that systems differ less."""
    seen, naive = {}, {}
    for shared in (0.0, 1.0):
        rng = np.random.default_rng(3)
        studies = [samples(rng, DECLARED, (0.0, 0.0), sizes=(300,), shared=shared) for _ in range(12)]
        seen[shared] = np.mean([measure_noise(study).method_problem.value for study in studies])
        apart = []
        for ((one, other),) in studies:
            a, b = one.mean(-1), other.mean(-1)
            chance = (a * (1 - a)).mean(0)
            apart.append((((a - b) ** 2).mean(0) - 2 * chance / 31).sum() / (2 * (chance**2).sum()))
        naive[shared] = np.mean(apart)
    assert seen[1.0] == pytest.approx(seen[0.0], abs=0.05)
    assert seen[1.0] == pytest.approx(0.3, abs=0.05)
    assert naive[1.0] < 0.5 * naive[0.0]


@pytest.mark.parametrize(
    ("seeds", "problems", "is_enough"),
    [([3, 3], 60, True), ([3, 3], 59, False), ([3], 570, False), ([2, 2, 2, 2], 570, False), ([5, 3, 1], 60, True)],
)
def test_few_runs_or_problems_are_not_enough(seeds: list[int], problems: int, is_enough: bool) -> None:
    assert enough(seeds, problems) is is_enough


# --- from a study's files


def redraw(study, results: Results, noise: LogitNoise, problems: int) -> None:
    """Grades of every trained policy of a synthetic study drawn anew under this noise."""
    rng, base = np.random.default_rng(5), {}
    runs = {name: noise.run * rng.normal() for name in study.runs}
    for name, spec in study.evaluations.items():
        path = results.evaluation(name).grades
        if not path.exists() or name.startswith(f"{MODEL}/"):
            continue
        frame = pd.read_parquet(path).sort_values(["problem_id", "sample"])
        odds = base.setdefault(spec.benchmark.id, rng.normal(0, 1.5, problems))
        method = base.setdefault((spec.policy.id.split("-seed")[0], spec.benchmark.id), rng.normal(0, 0.3, problems))
        chances = expit(odds + method + runs[spec.policy.id] + noise.run_problem * rng.normal(size=problems))
        right = rng.uniform(size=(problems, 32)) < chances[:, None]
        frame.assign(grade=np.where(right.ravel(), "correct", "wrong")).to_parquet(path, index=False)


def measured(folder: Path, seeds: int, problems: int = 40, noise: LogitNoise = DECLARED):
    study, results = make_study(folder, "paper", problems=problems, seeds=seeds), Results(folder / "paper")
    (study.folder / "costs.yaml").write_bytes((ROOT / "config" / "costs.yaml").read_bytes())
    redraw(study, results, noise, problems)
    return study, results


def test_power_plans_with_what_enough_finished_runs_measure(tmp_path: Path) -> None:
    study, results = measured(tmp_path, seeds=3, noise=LogitNoise(0.4, 0.3, 0.6))
    seen = measured_noise(study, results)[MODEL]
    assert isinstance(seen.noise, MeasuredNoise)
    assert (seen.noise.runs, seen.noise.methods) == (6, 2)  # of GRPO and N-GRPO
    assert seen.noise.problems >= LEAST_PROBLEMS
    assert 0.4 < seen.noise.run_problem.value < 0.8
    planner = Planner(study, Costs(study, results))
    assert planner.noise(MODEL) == seen.noise.noise != DECLARED
    text = power_text(planner, only="ngrpo-over-grpo-1.5b")
    assert f"noise of {MODEL} (log-odds), measured on 6 finished runs of 2 methods" in text
    assert "declared estimates" not in text
    assert "by measured noise between runs" in decidable(planner)
    declared = Planner(study, Costs(study, Results(tmp_path / "nothing")))
    claims = [next(p.claims("ngrpo-over-grpo-1.5b")) for p in (planner, declared)]
    assert claims[0].power(10, "on these benchmarks") < claims[1].power(10, "on these benchmarks")


def test_few_finished_runs_leave_the_declared_noise_and_the_output_says_so(tmp_path: Path) -> None:
    study, results = measured(tmp_path, seeds=2)
    planner = Planner(study, Costs(study, results))
    assert planner.noise(MODEL) == DECLARED
    text = power_text(planner, only="ngrpo-over-grpo-1.5b")
    assert f"finished runs of {MODEL} are too few to measure it (training seeds: " in text
    assert "it takes 2 methods with 3 each, on 60 problems" in text
    assert "noise (log-odds) of all models: run 0.1" in text
    assert "by declared noise between runs" in decidable(planner)
