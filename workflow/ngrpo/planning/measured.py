"""The noise between runs as finished runs of a scale have it, for each base model: what `ngrpo power` plans with in the
place of the declared one where there are enough (ngrpo.statistics.noise says how it is estimated).

Enough: two methods or more with three training seeds or more each, and together sixty problems of benchmarks that all
of them were measured on. Methods of a model are pooled; those of which a run learned nothing are left out, as the base
model's own weights don't vary. Models aren't pooled: what a run makes of a problem may depend on how a model learns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ngrpo.statistics.noise import (
    LEAST_METHODS,
    LEAST_PROBLEMS,
    LEAST_SEEDS,
    MeasuredNoise,
    Spread,
    enough,
    measure_noise,
)
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.specs import RunSpec

STANDARD = "standard"
"""The decoding whose evaluations count."""
Names = dict[str, dict[str, dict[int, str]]]
"""Run of a method's first seed → benchmark → training seed → evaluation whose grades are there."""


@dataclass(frozen=True)
class Found:
    """What finished runs of a base model are there. noise: None where they aren't enough."""

    model: str
    seeds: dict[str, int]
    """Of each trained method that is measured: training seeds that all its benchmarks have."""
    noise: MeasuredNoise | None

    @property
    def words(self) -> str:
        """What was measured, or why nothing is."""
        if self.noise is None:
            had = ", ".join(f"{method} {count}" for method, count in self.seeds.items())
            return (
                f"finished runs of {self.model} are too few to measure it (training seeds: {had}); it takes"
                f" {LEAST_METHODS} methods with {LEAST_SEEDS} each, on {LEAST_PROBLEMS} problems"
            )
        m = self.noise
        return (
            f"noise of {self.model} (log-odds), measured on {m.runs} finished runs of {m.methods} methods, {m.problems}"
            f" problems: run {_said(m.run)}, method × problem {_said(m.method_problem)}, run × problem"
            f" {_said(m.run_problem)}; in brackets: 95 % intervals"
        )


def _said(spread: Spread) -> str:
    return f"{spread.value:.2f} ({spread.low:.2f} – {spread.high:.2f})"


def measured_noise(study: Study, results: Results) -> dict[str, Found]:
    """What finished runs of each base model say; no entry where nothing trained is measured yet."""
    return {model: _measured(study, results, model, names) for model, names in _there(study, results).items()}


def _there(study: Study, results: Results) -> dict[str, Names]:
    """Base model → trained methods' evaluations with standard decoding whose grades are there."""
    there: dict[str, Names] = {}
    for name, spec in study.evaluations.items():
        policy = spec.policy
        if not isinstance(policy, RunSpec) or policy.seed != study.first_seed or spec.decoding_id != STANDARD:
            continue
        for each in (name, *study.extra_seeds.get(name, ())):
            if results.evaluation(each).grades.exists():
                run = study.evaluations[each].policy
                assert isinstance(run, RunSpec), "a further seed of a trained policy is one"
                of_run = there.setdefault(policy.model.id, {}).setdefault(policy.id, {})
                of_run.setdefault(spec.benchmark.id, {})[run.seed] = each
    return there


def _measured(study: Study, results: Results, model: str, there: Names) -> Found:
    common = {method: set.intersection(*map(set, names.values())) for method, names in there.items()}
    seeds = {method: len(numbers) for method, numbers in common.items()}
    if not enough(list(seeds.values()), LEAST_PROBLEMS):  # without opening a file
        return Found(model, seeds, None)
    samples = {method: _samples(study, results, there[method], common[method]) for method in there}
    counted = {method: part for method, part in samples.items() if len(_seeds(part)) >= LEAST_SEEDS}
    seeds |= {method: len(_seeds(part)) for method, part in samples.items()}
    benchmarks = []
    for benchmark in sorted(set.intersection(*map(set, counted.values()))) if counted else ():
        of_methods = [list(part[benchmark].values()) for part in counted.values()]
        if len({(ids, right.shape) for each in of_methods for ids, right in each}) == 1:
            benchmarks.append([np.stack([right for _, right in each]) for each in of_methods])
    problems = sum(methods[0].shape[1] for methods in benchmarks)
    if not enough([len(_seeds(part)) for part in counted.values()], problems):
        return Found(model, seeds, None)
    return Found(model, seeds, measure_noise(benchmarks))


Samples = Mapping[str, Mapping[int, tuple[tuple[str, ...], np.ndarray]]]
"""Benchmark → training seed → problems' ids and which of their samples are correct, (N, n)."""


def _seeds(samples: Samples) -> set[int]:
    return set.intersection(*map(set, samples.values())) if samples else set()


def _samples(study: Study, results: Results, names: dict[str, dict[int, str]], seeds: set[int]) -> Samples:
    """A method's samples on all its benchmarks under the training seeds whose grades can be used; nothing where a run
    learned nothing."""
    # grades are read with pandas, which takes a second to load: not before there is something to read
    from ngrpo.audit.status import read_grades, run_state

    for name in {study.evaluations[by_seed[seed]].policy.id for by_seed in names.values() for seed in seeds}:
        if run_state(study, results, name).learned_nothing:
            return {}

    def read(name: str) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        frame = read_grades(study, results, name).frame
        if frame is not None:
            rows = frame.sort_values(["problem_id", "sample"])
            right = (rows["grade"] == "correct").to_numpy(dtype=float).reshape(-1, study.evaluations[name].samples)
            yield tuple(rows["problem_id"].unique()), right

    usable = {b: {s: part for s in sorted(seeds) for part in read(by_seed[s])} for b, by_seed in names.items()}
    whole = _seeds(usable)
    return {b: {s: part for s, part in by_seed.items() if s in whole} for b, by_seed in usable.items()}
