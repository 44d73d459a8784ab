"""The evidence on predicates over training logs: means, least and greatest values, slowdown."""

import numpy as np
import pandas as pd

from ngrpo.claims.evidence import Evidence, Reader, ShownEffect, digest_of
from ngrpo.claims.quantities import logged_of
from ngrpo.statistics.decisions import LEAST_SEEDS, over_runs
from ngrpo.statistics.effects import Arm, Effect
from ngrpo.study.predicates import Logged, Slowdown
from ngrpo.study.titles import title_of


def seen(value: float | np.ndarray) -> Effect:
    """What was counted whole, such as the worst of all steps: it has no error."""
    return Effect(np.asarray(value, dtype=float).reshape(()), (Arm(np.array(0.0), 1.0),))


def _seeds_of(reader: Reader, model: str, *methods: str) -> list[int]:
    """The training seeds that all these methods come with."""
    study = reader.study
    runs = [study.run_id(method, model) for method in methods]
    return sorted(set.intersection(*(study.seeds_of_runs[run] if run else {study.first_seed} for run in runs)))


def logged(test: Logged, reader: Reader) -> Evidence:
    """The evidence on a logged metric, over the seeds' runs."""
    evidence = Evidence()
    series: list[np.ndarray] = []
    runs: list[str] = []
    lost: list[str] = []
    for seed in _seeds_of(reader, test.model, test.method):
        entry = reader.log(test.method, test.model, seed, lost)
        if entry is None:
            continue
        run, log = entry
        values = log[test.metric].dropna().to_numpy() if test.metric in log else np.array([])
        if len(values) < 2:
            lost.append(f"Training run {run} logged no {test.metric}")
            continue
        evidence.saw(seed, digest_of(values))
        series.append(values)
        runs.append(run)
    (evidence.unused if series else evidence.missing).extend(lost)
    if not series:
        return evidence
    sign, limit = test.limit
    side = "at least" if sign > 0 else "at most"
    over = "mean over steps" if test.over_steps == "mean" else "in every step"
    who, model = title_of(reader.study, "method", test.method), title_of(reader.study, "model", test.model)
    what = f"{test.metric.replace('_', ' ')}, {over}, {side} {limit:g}: {who} ({model})"
    if test.over_steps == "worst":
        series = [np.array([values.min() if sign > 0 else values.max()]) for values in series]
        effect = seen(min(series) if sign > 0 else max(series))
    else:
        effect = over_runs(series)
    _add_logged(evidence, reader, effect, what, "number", test.paper, series, runs, f"{test.metric} {test.over_steps}")
    evidence.tests.append((effect.moved(sign, -sign * limit), max(abs(test.paper - limit), 1e-12)))
    return evidence


def slowdown(test: Slowdown, reader: Reader) -> Evidence:
    """The evidence on how much slower one method's rollouts are than another's, over the seeds' runs."""
    evidence = Evidence()
    series: list[np.ndarray] = []
    runs: list[str] = []
    lost: list[str] = []
    for seed in _seeds_of(reader, test.model, test.method, test.than):
        entries = [reader.log(method, test.model, seed, lost) for method in (test.method, test.than)]
        logs = [entry for entry in entries if entry is not None]
        if len(logs) < 2:
            continue
        rates = []
        for run, log in logs:
            if not {"response_length", "rollout_seconds"} <= set(log):
                lost.append(f"Training run {run} logged no response length or rollout time")
                continue
            timed = log.set_index("step")
            rates.append((timed["response_length"] / timed["rollout_seconds"]).dropna())
        if len(rates) == 2:
            both = pd.concat(rates, axis=1, join="inner")
            series.append((1 - both.iloc[:, 0] / both.iloc[:, 1]).to_numpy())
            evidence.saw(seed, digest_of(series[-1]))
            runs += [run for run, _ in logs]
    (evidence.unused if series else evidence.missing).extend(lost)
    if not series:
        return evidence
    limit, effect = test.at_most / 100, over_runs(series)
    who, other = (title_of(reader.study, "method", method) for method in (test.method, test.than))
    model = title_of(reader.study, "model", test.model)
    what = f"Slowdown of rollouts, {who} against {other}, at most {test.at_most:g} % ({model})"
    _add_logged(evidence, reader, effect, what, "share", test.paper / 100, series, runs, "slowdown")
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
    measured: str,
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
            p=float(effect.p()),
            detectable=float(effect.detectable()),
            paper=paper,
            seeds=len(series),
            by_seed=tuple(float(values.mean()) for values in series),
            quantity=logged_of(measured, runs),
            files=tuple(reader.results.relative(reader.results.run(run).metrics) for run in runs),
        )
    )
