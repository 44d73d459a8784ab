"""What a study says of each claim: evidence, effect with interval, verdict; missing evidence with its command.

Evidence is read from grades and training logs. A claim over trained policies takes every seed of the scale: its own and
its `extra_seeds`. Verdicts: ngrpo.statistics.decisions. A scale that is no evidence about the paper shows effects and
gives no verdict. A claim that lacks any of its evidence is not run: nothing is filled in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ngrpo.audit.fidelity import mixed_fidelity
from ngrpo.audit.status import Grades, read_grades, run_state
from ngrpo.claims.predicates import (
    Claim,
    Higher,
    Logged,
    Predicate,
    Similar,
    Slowdown,
    System,
    check_names,
    here,
    read_claims,
)
from ngrpo.errors import UserError
from ngrpo.report.tables import scale_note
from ngrpo.statistics.decisions import LEAST_SEEDS, VERDICTS, Effect, judge, over_problems, over_runs
from ngrpo.statistics.metrics import problem_values, sampled_sign_flip_p
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import read_paper_values

REASONS = {
    "supported": "Every effect that the claim needs is there, over problems and over training seeds.",
    "contradicted": "An effect that the claim needs goes the other way.",
    "not supported": "An effect as large as the paper’s would have been seen, and wasn’t.",
    "underpowered": "An effect as large as the paper’s might not have been seen: more problems or seeds are needed.",
    "not run": "Evidence is missing.",
}
ONE_SEED = "One training seed: what another one would give isn’t known. Set `extra_seeds` in the scale’s file."
OTHER = {"bootstrap": "unbiased", "unbiased": "bootstrap"}


@dataclass(frozen=True)
class Part:
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


@dataclass(frozen=True)
class Finding:
    """A claim with what was found. verdict: one of VERDICTS, or None at a scale that gives none."""

    id: str
    where: str
    says: str
    verdict: str | None
    reason: str
    parts: tuple[Part, ...] = ()
    missing: tuple[str, ...] = ()
    error: bool = False
    """Whether the claim names what doesn't exist."""
    same_as: str | None = None
    """At a scale without verdicts: the claim before it that has the same evidence here."""


@dataclass
class _Gathered:
    """A claim's evidence while it is collected: what is shown, and what must be above 0 of what size."""

    parts: list[Part] = field(default_factory=list)
    tests: list[tuple[Effect, float]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    replicated: bool = True


class _Reader:
    """Grades and logs, each read once."""

    def __init__(self, study: Study, results: Path):
        self.study, self.results = study, results
        self._grades: dict[str, Grades] = {}
        self._values: dict[tuple, pd.Series] = {}
        self._logs: dict[str, tuple[str, pd.DataFrame]] = {}
        self.seeds = (None, *study.size.extra_seeds)

    def seeds_of(self, *systems: System) -> tuple:
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
            self._values[key] = problem_values(self._grades[name].frame, metric, estimator, where=name)
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


def findings(study: Study, results: Path) -> list[Finding]:
    """Every claim of the study's configuration, in its order. Raises UserError for files that aren't readable."""
    if study.folder is None:
        return []
    paper, reader = read_paper_values(study.folder), _Reader(study, results)
    found, seen = [], {}
    for name, claim in read_claims(study.folder).items():
        try:
            check_names(name, claim, study, paper)
        except UserError as error:
            verdict = "not run" if study.size.verdicts else None
            reason = f"The claim names what doesn’t exist: {error.what} ({error.do})."
            found.append(Finding(name, claim.where, claim.says, verdict, reason, error=True))
            continue
        found.append(_finding(name, claim, study, reader, seen))
    return found


def _finding(name: str, claim: Claim, study: Study, reader: _Reader, seen: dict[str, str]) -> Finding:
    """One claim's finding. seen: what was already asked at a scale whose one model stands in for several."""
    try:
        test = here(claim.test, study)
        gathered = _gather(test, reader)
    except UserError as error:
        gathered = _Gathered(missing=[f"{error.what}{f'; {error.do}' if error.do else ''}"])
    same = (name, claim.where, claim.says)
    shown = {"parts": tuple(gathered.parts), "missing": tuple(dict.fromkeys(gathered.missing))}
    if not study.size.verdicts:
        first = seen.setdefault(repr((gathered.missing, [replace(part, paper=0.0) for part in gathered.parts])), name)
        if first != name:
            return Finding(*same, None, f"The same evidence here as for {first}.", same_as=first)
        return Finding(*same, None, f"No verdict ({scale_note(study.scale, False)}).", **shown)
    if gathered.missing:
        return Finding(*same, "not run", REASONS["not run"], **shown)
    effects, sizes = zip(*gathered.tests, strict=True)
    verdict = VERDICTS[int(judge(effects, sizes, gathered.replicated))]
    return Finding(*same, verdict, REASONS[verdict] if gathered.replicated else ONE_SEED, **shown)


def _gather(test: Predicate, reader: _Reader) -> _Gathered:
    if isinstance(test, Higher):
        return _higher(test, reader)
    if isinstance(test, Similar):
        return _similar(test, reader)
    return _logged(test, reader) if isinstance(test, Logged) else _slowdown(test, reader)


def system_name(study: Study, system: System) -> str:
    """How the page names a system: its method's title, and the decoding's where it isn't the standard one."""
    who = study.study.methods[system.method].title if system.method else "Base"
    return who if system.decoding == "standard" else f"{who} with {study.study.decodings[system.decoding].title}"


def metric_name(metric: str, samples: int) -> str:
    """The metric as the tables name it."""
    return f"Mean@{samples}" if metric == "mean" else f"P{metric[1:]}"


def _pair(
    test: Higher | Similar, other: System, benchmarks: Sequence[str], reader: _Reader, gathered: _Gathered
) -> tuple[Part, Effect] | None:
    """`system` minus `other`, averaged over benchmarks; None where evidence is missing."""
    study, missing = reader.study, []
    seeds = reader.seeds_of(test.system, other)
    names = {
        (which, benchmark, seed): reader.evaluation(system, test.model, benchmark, seed, missing)
        for benchmark in benchmarks
        for seed in seeds
        for which, system in enumerate((test.system, other))
    }
    gathered.missing += missing
    if missing:
        return None
    k_metric = test.metric != "mean"

    def differences(estimator: str) -> list[np.ndarray]:
        stacked = []
        for benchmark in benchmarks:
            rows = []
            for seed in seeds:
                one, two = (reader.values(names[i, benchmark, seed], test.metric, estimator) for i in (0, 1))
                if not one.index.equals(two.index):
                    raise UserError(f"on {benchmark} the two evaluations hold different problems")
                rows.append((one - two).to_numpy())
            stacked.append(np.stack(rows))
        return stacked

    stacked = differences(test.estimator)
    if any(d.shape[1] < 2 for d in stacked):
        raise UserError("a benchmark has fewer than two problems")
    trained = any(s.method for s in (test.system, other))
    effect = over_problems(stacked, trained)
    if trained and len(seeds) < LEAST_SEEDS:
        gathered.replicated = False
    low, high = effect.interval()
    means = [
        float(
            np.mean(
                [reader.values(names[i, *at], test.metric, test.estimator).mean() for at in product(benchmarks, seeds)]
            )
        )
        for i in (0, 1)
    ]
    weighted = np.concatenate([d.mean(0) / d.shape[1] / len(stacked) for d in stacked])
    metric = metric_name(test.metric, study.size.evaluation.samples)
    on = "average of " + ", ".join(benchmarks) if len(benchmarks) > 1 else benchmarks[0]
    part = Part(
        what=f"{system_name(study, test.system)} − {system_name(study, other)}: {metric}, {on} ({test.model})",
        unit="points",
        estimate=float(effect.estimate),
        low=float(low),
        high=float(high),
        detectable=float(effect.detectable),
        paper=0.0,
        seeds=len(seeds),
        a=means[0],
        b=means[1],
        p=sampled_sign_flip_p(weighted, 0),
        n=study.size.evaluation.samples,
        problems=sum(d.shape[1] for d in stacked),
        by_seed=tuple(float(v) for v in np.mean([d.mean(1) for d in stacked], axis=0)),
        other_estimator=float(over_problems(differences(OTHER[test.estimator])).estimate) if k_metric else None,
        files=tuple(dict.fromkeys(f"evaluations/{name}.grades.parquet" for name in names.values())),
        note=_mixed(study, test.model, (test.system, other)),
    )
    return part, effect


def _mixed(study: Study, model: str, systems: Sequence[System]) -> str:
    found = {system_name(study, s): study.run_id(s.method, model) for s in systems if s.method}
    told = mixed_fidelity({name: study.runs[run] for name, run in found.items() if run})
    return f"mixed fidelity: {'; '.join(told)}" if told else ""


def _higher(test: Higher, reader: _Reader) -> _Gathered:
    gathered = _Gathered()
    for other, points in zip(test.than, test.paper, strict=True):
        found = _pair(test, other, test.benchmarks, reader, gathered)
        if found:
            gathered.parts.append(replace(found[0], paper=points / 100))
            gathered.tests.append((found[1], points / 100))
    return gathered


def _similar(test: Similar, reader: _Reader) -> _Gathered:
    gathered, margin = _Gathered(), test.within / 100
    for other in test.to:
        for benchmark in test.benchmarks:
            found = _pair(test, other, [benchmark], reader, gathered)
            if found:
                gathered.parts.append(replace(found[0], paper=margin, reference="margin"))
                gathered.tests += [(found[1].moved(sign, margin), margin) for sign in (1, -1)]
    return gathered


def _logged(test: Logged, reader: _Reader) -> _Gathered:
    gathered, series, runs = _Gathered(), [], []
    for seed in reader.seeds:
        found = reader.log(test.method, test.model, seed, gathered.missing)
        if found is None:
            continue
        run, log = found
        values = log[test.metric].dropna().to_numpy() if test.metric in log else np.array([])
        if len(values) < 2:
            gathered.missing.append(f"Training run {run} logged no {test.metric}")
            continue
        series.append(values)
        runs.append(run)
    if gathered.missing:
        return gathered
    sign, limit = (1, test.at_least) if test.at_least is not None else (-1, test.at_most)
    effect = over_runs(series)
    side = "at least" if sign > 0 else "at most"
    what = f"{test.metric.replace('_', ' ')}, mean over steps, {side} {limit:g}: {test.method} ({test.model})"
    _logged_part(gathered, effect, what, "number", test.paper, series, runs)
    gathered.tests.append((effect.moved(sign, -sign * limit), max(abs(test.paper - limit), 1e-12)))
    return gathered


def _slowdown(test: Slowdown, reader: _Reader) -> _Gathered:
    gathered, series, runs = _Gathered(), [], []
    for seed in reader.seeds:
        logs = [reader.log(method, test.model, seed, gathered.missing) for method in (test.method, test.than)]
        if None in logs:
            continue
        rates = []
        for run, log in logs:
            if not {"response_length", "rollout_seconds"} <= set(log):
                gathered.missing.append(f"Training run {run} logged no response length or rollout time")
                continue
            timed = log.set_index("step")
            rates.append((timed["response_length"] / timed["rollout_seconds"]).dropna())
        if len(rates) == 2:
            both = pd.concat(rates, axis=1, join="inner")
            series.append((1 - both.iloc[:, 0] / both.iloc[:, 1]).to_numpy())
            runs += [run for run, _ in logs]
    if gathered.missing:
        return gathered
    limit, effect = test.at_most / 100, over_runs(series)
    what = f"Slowdown of rollouts, {test.method} against {test.than}, at most {test.at_most:g} % ({test.model})"
    _logged_part(gathered, effect, what, "share", test.paper / 100, series, runs)
    gathered.tests.append((effect.moved(-1, limit), max(abs(test.at_most - test.paper) / 100, 1e-12)))
    return gathered


def _logged_part(
    gathered: _Gathered, effect: Effect, what: str, unit: str, paper: float, series: list[np.ndarray], runs: list[str]
) -> None:
    low, high = effect.interval()
    gathered.replicated = len(series) >= LEAST_SEEDS
    gathered.parts.append(
        Part(
            what=what,
            unit=unit,
            estimate=float(effect.estimate),
            low=float(low),
            high=float(high),
            detectable=float(effect.detectable),
            paper=paper,
            seeds=len(series),
            by_seed=tuple(float(values.mean()) for values in series),
            files=tuple(f"runs/{run}/metrics.jsonl" for run in runs),
        )
    )
