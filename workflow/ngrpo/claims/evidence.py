"""What a study knows about a predicate: effects with their intervals, read from grades and training logs.

A claim over trained policies takes every seed of the scale: its own and its `extra_seeds`. What is missing is noted
with the command that makes it, and nothing is filled in. Claims and their verdicts: ngrpo.claims.verdicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import pandas as pd

from ngrpo.audit.fidelity import mixed_fidelity
from ngrpo.audit.status import Grades, read_grades, run_state
from ngrpo.claims.needs import training_seeds
from ngrpo.claims.predicates import Estimator, Higher, Id, Logged, Metric, Similar, Slowdown, System
from ngrpo.errors import UserError
from ngrpo.statistics.decisions import LEAST_SEEDS, Arm, Effect, over_problems, over_runs
from ngrpo.statistics.metrics import problem_values, sampled_sign_flip_p
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results

OTHER = {"bootstrap": "unbiased", "unbiased": "bootstrap"}


@dataclass(frozen=True)
class ShownEffect:
    """One effect. Differences and Mean or Pass@k are shares, cosines themselves; low and high: the 95 % interval."""

    what: str
    unit: str
    """points | share | number"""
    estimate: float
    low: float
    high: float
    detectable: float
    paper: float
    """What the paper reports, or the margin where that is the reference."""
    seeds: int
    a: float | None = None
    """The system's own value, and b the other's."""
    b: float | None = None
    p: float | None = None
    """Sign flips of problems' differences, two-sided."""
    n: int | None = None
    problems: int | None = None
    by_seed: tuple[float, ...] = ()
    other_estimator: float | None = None
    reference: str = "paper"
    note: str = ""
    """What the compared runs hold differently of paper and released code."""
    files: tuple[str, ...] = ()
    """Relative to results/{scale}."""


@dataclass
class Evidence:
    """What a predicate is judged by, while it is collected."""

    parts: list[ShownEffect] = field(default_factory=list)
    tests: list[tuple[Effect, float]] = field(default_factory=list)
    """What must be above 0, and the size that an effect of interest has: all of them, where there are no cells."""
    cells: list[list[tuple[Effect, float]]] = field(default_factory=list)
    """The same, by cell: all of a cell's must be above 0, in at least `at_least` cells."""
    at_least: int = 0
    missing: list[str] = field(default_factory=list)
    replicated: bool = True
    """Whether every trained policy comes with enough seeds."""


class Reader:
    """Grades and logs of one study, each read once."""

    def __init__(self, study: Study, results: Results):
        self.study, self.results = study, results
        self._grades: dict[str, Grades] = {}
        self._values: dict[tuple[str, str, str], pd.Series] = {}
        self._logs: dict[str, tuple[str, pd.DataFrame]] = {}
        self.seeds = training_seeds(study)

    def seeds_of(self, *systems: System) -> tuple[int | None, ...]:
        """The seeds over which systems are compared; one where none of them is trained."""
        return self.seeds if any(s.method for s in systems) else (None,)

    def evaluation(
        self, system: System, model: str, benchmark: str, seed: int | None, missing: list[str]
    ) -> str | None:
        """The evaluation's id where its grades can be used; else None, and why in `missing`."""
        seed = seed if system.method else None
        name = self.study.evaluation_id(system.method, system.decoding, model, benchmark, seed)
        if name is None:
            who = system.method or "the base model"
            note = f"no table of scale {self.study.scale} measures {who} with {system.decoding} decoding on {benchmark}"
        else:
            if name not in self._grades:
                self._grades[name] = read_grades(self.study, self.results, name)
            grades = self._grades[name]
            if grades.frame is not None:
                return name
            note = f"Evaluation {name}: {grades.status}: {grades.note}"
        if note not in missing:
            missing.append(note)
        return None

    def values(self, name: str, metric: str, estimator: str) -> pd.Series:
        """A value a problem of a usable evaluation."""
        key = (name, metric, estimator)
        if key not in self._values:
            frame = self._grades[name].frame
            assert frame is not None, f"{name} was asked for its values and isn't usable"
            self._values[key] = problem_values(frame, metric, estimator, where=name)
        return self._values[key]

    def log(self, method: str, model: str, seed: int | None, missing: list[str]) -> tuple[str, pd.DataFrame] | None:
        """A finished run's id and log; else None, and why in `missing`."""
        run = self.study.run_id(method, model, seed)
        if run is None:
            missing.append(f"no table of scale {self.study.scale} trains {method} on {model}")
            return None
        if run not in self._logs:
            state = run_state(self.study, self.results, run)
            self._logs[run] = (state.note or ("" if len(state.log) > 1 else "logged fewer than two steps"), state.log)
        note, log = self._logs[run]
        if note:
            missing.append(f"Training run {run}: {note}")
            return None
        return run, log


# --- comparisons of evaluations ---


def higher(test: Higher, reader: Reader) -> Evidence:
    """The evidence on a difference from each of several systems."""
    evidence = Evidence()
    for other, benchmarks, points in test.comparisons():
        asked = Comparison(test.model, test.system, other, benchmarks, test.metric, test.estimator)
        pair = compared(asked, reader, evidence)
        if pair:
            evidence.parts.append(replace(pair[0], paper=points / 100))
            evidence.tests.append((pair[1], points / 100))
    return evidence


def similar(test: Similar, reader: Reader) -> Evidence:
    """The evidence on closeness to each of several systems: both sides of the margin are tested."""
    evidence = Evidence()
    for other, benchmarks, points in test.comparisons():
        asked = Comparison(test.model, test.system, other, benchmarks, test.metric, test.estimator)
        pair = compared(asked, reader, evidence)
        if pair:
            margin = points / 100
            evidence.parts.append(replace(pair[0], paper=margin, reference=f"margin ({test.whose})"))
            evidence.tests += [(pair[1].moved(sign, margin), margin) for sign in (1, -1)]
    return evidence


@dataclass(frozen=True)
class Comparison:
    """What is asked of two systems on a model: their difference, averaged over benchmarks."""

    model: Id
    system: System
    other: System
    benchmarks: Sequence[Id]
    metric: Metric
    estimator: Estimator


@dataclass(frozen=True)
class _Pairing:
    """Two systems' usable evaluations on the same benchmarks under the same seeds."""

    reader: Reader
    benchmarks: Sequence[str]
    seeds: tuple[int | None, ...]
    names: dict[tuple[int, str, int | None], str]
    """The evaluation of (0: the system, 1: the other; benchmark; seed)."""
    metric: str

    def differences(self, estimator: str) -> list[np.ndarray]:
        """System minus other, (seeds, problems) a benchmark. Raises UserError where problems differ or are too few."""
        stacked = []
        for benchmark in self.benchmarks:
            rows = []
            for seed in self.seeds:
                one, two = (self.reader.values(self.names[i, benchmark, seed], self.metric, estimator) for i in (0, 1))
                if not one.index.equals(two.index):
                    raise UserError(f"on {benchmark} the two evaluations hold different problems")
                rows.append((one - two).to_numpy())
            stacked.append(np.stack(rows))
        if any(d.shape[1] < 2 for d in stacked):
            raise UserError("a benchmark has fewer than two problems")
        return stacked

    def mean(self, side: int, estimator: str) -> float:
        """One side's value, averaged over benchmarks and seeds."""
        places = product(self.benchmarks, self.seeds)
        values = [self.reader.values(self.names[side, *at], self.metric, estimator).mean() for at in places]
        return float(np.mean(values))


def compared(asked: Comparison, reader: Reader, evidence: Evidence) -> tuple[ShownEffect, Effect] | None:
    """`system` minus `other`, averaged over benchmarks; None where evidence is missing."""
    missing: list[str] = []
    systems = (asked.system, asked.other)
    seeds = reader.seeds_of(*systems)
    names: dict[tuple[int, str, int | None], str] = {}
    for benchmark, seed in product(asked.benchmarks, seeds):
        for side, system in enumerate(systems):
            name = reader.evaluation(system, asked.model, benchmark, seed, missing)
            if name is not None:
                names[side, benchmark, seed] = name
    evidence.missing += missing
    if missing:
        return None
    pairing = _Pairing(reader, asked.benchmarks, seeds, names, asked.metric)
    stacked = pairing.differences(asked.estimator)
    trained = any(s.method for s in systems)
    effect = over_problems(stacked, trained)
    if trained and len(seeds) < LEAST_SEEDS:
        evidence.replicated = False
    return _shown_pair(asked, pairing, stacked, effect), effect


def _shown_pair(asked: Comparison, pairing: _Pairing, stacked: list[np.ndarray], effect: Effect) -> ShownEffect:
    """A pair's effect as the page shows it; the paper's value is the caller's."""
    reader, benchmarks = pairing.reader, pairing.benchmarks
    study, samples = reader.study, reader.study.size.evaluation.samples
    low, high = effect.interval()
    weighted = np.concatenate([d.mean(0) / d.shape[1] / len(stacked) for d in stacked])
    metric = metric_name(asked.metric, samples)
    on = "average of " + ", ".join(benchmarks) if len(benchmarks) > 1 else benchmarks[0]
    other_estimator = None
    if asked.metric != "mean":
        other_estimator = float(over_problems(pairing.differences(OTHER[asked.estimator])).estimate)
    files = [reader.results.relative(reader.results.evaluation(name).grades) for name in pairing.names.values()]
    return ShownEffect(
        what=f"{system_name(study, asked.system)} − {system_name(study, asked.other)}: {metric}, {on} ({asked.model})",
        unit="points",
        estimate=float(effect.estimate),
        low=float(low),
        high=float(high),
        detectable=float(effect.detectable),
        paper=0.0,
        seeds=len(pairing.seeds),
        a=pairing.mean(0, asked.estimator),
        b=pairing.mean(1, asked.estimator),
        p=sampled_sign_flip_p(weighted, 0),
        n=samples,
        problems=sum(d.shape[1] for d in stacked),
        by_seed=tuple(float(v) for v in np.mean([d.mean(1) for d in stacked], axis=0)),
        other_estimator=other_estimator,
        files=tuple(dict.fromkeys(files)),
        note=_cautions(reader, asked.model, (asked.system, asked.other)),
    )


def system_name(study: Study, system: System) -> str:
    """How the page names a system: its method's title, and the decoding's where it isn't the standard one."""
    who = study.study.methods[system.method].title if system.method else "Base"
    return who if system.decoding == "standard" else f"{who} with {study.study.decodings[system.decoding].title}"


def metric_name(metric: str, samples: int) -> str:
    """The metric as the tables name it."""
    return f"Mean@{samples}" if metric == "mean" else f"P{metric[1:]}"


def _cautions(reader: Reader, model: str, systems: Sequence[System]) -> str:
    """What a reader of a comparison has to know: fidelity that differs, and a run that learned nothing."""
    study = reader.study
    asked = {system_name(study, s): study.run_id(s.method, model) for s in systems if s.method}
    runs = {name: run for name, run in asked.items() if run}
    mixed = mixed_fidelity({name: study.runs[run] for name, run in runs.items()})
    cautions = [f"mixed fidelity: {'; '.join(mixed)}"] if mixed else []
    for name, run in runs.items():
        if nothing := run_state(study, reader.results, run).learned_nothing:
            cautions.append(f"{name} learned nothing: {nothing}")
    return "; ".join(cautions)


# --- training logs ---


def seen(value: float | np.ndarray) -> Effect:
    """What was counted whole, such as the worst of all steps: it has no error."""
    return Effect(np.asarray(value, dtype=float).reshape(()), (Arm(np.array(0.0), 1.0),))


def logged(test: Logged, reader: Reader) -> Evidence:
    """The evidence on a logged metric, over the seeds' runs."""
    evidence = Evidence()
    series: list[np.ndarray] = []
    runs: list[str] = []
    for seed in reader.seeds:
        entry = reader.log(test.method, test.model, seed, evidence.missing)
        if entry is None:
            continue
        run, log = entry
        values = log[test.metric].dropna().to_numpy() if test.metric in log else np.array([])
        if len(values) < 2:
            evidence.missing.append(f"Training run {run} logged no {test.metric}")
            continue
        series.append(values)
        runs.append(run)
    if evidence.missing:
        return evidence
    sign, limit = test.limit
    side = "at least" if sign > 0 else "at most"
    over = "mean over steps" if test.over_steps == "mean" else "in every step"
    what = f"{test.metric.replace('_', ' ')}, {over}, {side} {limit:g}: {test.method} ({test.model})"
    if test.over_steps == "worst":
        series = [np.array([values.min() if sign > 0 else values.max()]) for values in series]
        effect = seen(min(series) if sign > 0 else max(series))
    else:
        effect = over_runs(series)
    _add_logged(evidence, reader, effect, what, "number", test.paper, series, runs)
    evidence.tests.append((effect.moved(sign, -sign * limit), max(abs(test.paper - limit), 1e-12)))
    return evidence


def slowdown(test: Slowdown, reader: Reader) -> Evidence:
    """The evidence on how much slower one method's rollouts are than another's, over the seeds' runs."""
    evidence = Evidence()
    series: list[np.ndarray] = []
    runs: list[str] = []
    for seed in reader.seeds:
        entries = [reader.log(method, test.model, seed, evidence.missing) for method in (test.method, test.than)]
        logs = [entry for entry in entries if entry is not None]
        if len(logs) < 2:
            continue
        rates = []
        for run, log in logs:
            if not {"response_length", "rollout_seconds"} <= set(log):
                evidence.missing.append(f"Training run {run} logged no response length or rollout time")
                continue
            timed = log.set_index("step")
            rates.append((timed["response_length"] / timed["rollout_seconds"]).dropna())
        if len(rates) == 2:
            both = pd.concat(rates, axis=1, join="inner")
            series.append((1 - both.iloc[:, 0] / both.iloc[:, 1]).to_numpy())
            runs += [run for run, _ in logs]
    if evidence.missing:
        return evidence
    limit, effect = test.at_most / 100, over_runs(series)
    what = f"Slowdown of rollouts, {test.method} against {test.than}, at most {test.at_most:g} % ({test.model})"
    _add_logged(evidence, reader, effect, what, "share", test.paper / 100, series, runs)
    evidence.tests.append((effect.moved(-1, limit), max(abs(test.at_most - test.paper) / 100, 1e-12)))
    return evidence


def _add_logged(
    evidence: Evidence,
    reader: Reader,
    effect: Effect,
    what: str,
    unit: str,
    paper: float,
    series: list[np.ndarray],
    runs: list[str],
) -> None:
    low, high = effect.interval()
    evidence.replicated = len(series) >= LEAST_SEEDS
    evidence.parts.append(
        ShownEffect(
            what=what,
            unit=unit,
            estimate=float(effect.estimate),
            low=float(low),
            high=float(high),
            detectable=float(effect.detectable),
            paper=paper,
            seeds=len(series),
            by_seed=tuple(float(values.mean()) for values in series),
            files=tuple(reader.results.relative(reader.results.run(run).metrics) for run in runs),
        )
    )
