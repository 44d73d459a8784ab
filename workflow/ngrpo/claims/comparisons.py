"""Differences of two systems, paired by training seed and problem: what claims are judged by, and what tables show.

A difference of trained policies takes every training seed that is there for both: pairs of runs with the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from ngrpo.audit.fidelity import mixed_fidelity
from ngrpo.claims.evidence import Answer, Evidence, Reader, ShownEffect, digest_of, metric_name, system_name
from ngrpo.claims.quantities import difference_of
from ngrpo.errors import UserError
from ngrpo.statistics.crossed import PairedCounts, compare_systems
from ngrpo.statistics.decisions import LEAST_SEEDS, LEVEL
from ngrpo.statistics.effects import QUESTIONS, Effect
from ngrpo.statistics.estimators import estimator_values
from ngrpo.statistics.pairing import pairs
from ngrpo.study.expand import Study
from ngrpo.study.predicates import Estimator, Higher, Id, Metric, Similar, System
from ngrpo.study.specs import RunSpec
from ngrpo.study.titles import title_of

OTHER = {"bootstrap": "unbiased", "unbiased": "bootstrap"}


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
class Pairing:
    """Two systems' usable evaluations on the same benchmarks under the same seeds."""

    reader: Reader
    benchmarks: Sequence[str]
    seeds: Sequence[int]
    names: Mapping[tuple[int, str, int], str]
    """The evaluation of (0: the system, 1: the other; benchmark; seed)."""
    metric: str
    trained: tuple[bool, bool]

    def counts(self, benchmark: str) -> PairedCounts:
        """Both systems' counts on a benchmark. Raises UserError where problems or numbers of samples differ."""
        tables: list[list[pd.DataFrame]] = [[], []]
        for side, seed in product((0, 1), self.seeds):
            if self.trained[side] or not tables[side]:
                tables[side].append(self.reader.right(self.names[side, benchmark, seed]))
        first = tables[0][0]
        for table in (*tables[0], *tables[1]):
            if not table.index.equals(first.index):
                raise UserError(f"on {benchmark} the two evaluations hold different problems")
            if table.shape[1] != first.shape[1]:
                raise UserError(f"on {benchmark} one evaluation has {first.shape[1]} samples, one {table.shape[1]}")
        a, b = (np.stack([t.to_numpy(dtype=np.int64).sum(1) for t in side]) for side in tables)
        shared = None if any(self.trained) else pairs(first.to_numpy(), tables[1][0].to_numpy())
        return PairedCounts(a, b, first.shape[1], shared)

    def effect(self, estimator: str) -> Effect:
        """The system minus the other, averaged over benchmarks."""
        pairs = [self.counts(benchmark) for benchmark in self.benchmarks]
        return compare_systems(pairs, estimator_values(self.metric, estimator, pairs[0].n), self.trained)

    def quantity(self, estimator: str) -> str:
        """What the difference is a number of."""
        ours, theirs = ([self.names[i, b, self.seeds[0]] for b in self.benchmarks] for i in (0, 1))
        metric = metric_name(self.metric, self.reader.study.size.evaluation.samples)
        return difference_of(ours, theirs, metric, estimator, self.seeds)

    def digest(self, seed: int) -> str:
        """Of all that was compared of one seed."""
        parts = [self.reader.right(self.names[i, b, seed]) for i, b in product((0, 1), self.benchmarks)]
        return digest_of(*(part.to_numpy(dtype=np.uint8) for part in parts))

    def mean(self, side: int, estimator: str) -> float:
        """One side's value, averaged over benchmarks and seeds."""
        places = product(self.benchmarks, self.seeds)
        values = [self.reader.values(self.names[side, *at], self.metric, estimator).mean() for at in places]
        return float(np.mean(values))


def paired(reader: Reader, ours: Sequence[str], theirs: Sequence[str], metric: str) -> Pairing:
    """Two systems' evaluations with the study's first seed, a benchmark each, and with every further training seed with
    which those of both can be used."""
    study = reader.study
    sides = [[_by_seed(study, name) for name in names] for names in (ours, theirs)]
    trained = (sides[0][0] is not None, sides[1][0] is not None)
    known = [names for side in sides for names in side if names is not None]
    common = sorted(set.intersection(*map(set, known))) if known else [study.first_seed]
    benchmarks = [study.evaluations[name].benchmark.id for name in ours]
    names: dict[tuple[int, str, int], str] = {}
    seeds = []
    for seed in common:
        of_seed = {
            (place, benchmark, seed): one if named is None else named[seed]
            for place, (side, first) in enumerate(zip(sides, (ours, theirs), strict=True))
            for benchmark, named, one in zip(benchmarks, side, first, strict=True)
        }
        if all(reader.grades(name).frame is not None for name in of_seed.values()):
            names |= of_seed
            seeds.append(seed)
    return Pairing(reader, benchmarks, seeds, names, metric, trained)


def _by_seed(study: Study, evaluation: str) -> dict[int, str] | None:
    """An evaluation's training seeds; None where nothing was trained."""
    if not isinstance(study.evaluations[evaluation].policy, RunSpec):
        return None
    again = {study.evaluations[name].seed: name for name in study.extra_seeds.get(evaluation, ())}
    return {study.first_seed: evaluation, **again}


def compared(asked: Comparison, reader: Reader, evidence: Evidence) -> tuple[ShownEffect, Effect] | None:
    """`system` minus `other`, averaged over benchmarks, on the training seeds that both have; None where evidence is
    missing."""
    systems = (asked.system, asked.other)
    common = reader.common(systems, asked.model, asked.benchmarks, evidence)
    if common is None:
        return None
    trained = (systems[0].method is not None, systems[1].method is not None)
    pairing = Pairing(reader, asked.benchmarks, common.seeds, common.names, asked.metric, trained)
    effect = pairing.effect(asked.estimator)
    if any(trained) and len(common.seeds) < LEAST_SEEDS:
        evidence.replicated = False
    for seed in common.seeds:
        evidence.saw(seed, pairing.digest(seed))
    other = pairing.effect(OTHER[asked.estimator]) if asked.metric != "mean" else None
    shown = _shown_pair(asked, pairing, effect, None if other is None else float(other.estimate))
    if other is not None and (words := _disagreement(effect, other, asked.estimator)):
        evidence.notes.append(f"{shown.what}: {words}")
    return replace(shown, note="; ".join(filter(None, (common.note, shown.note)))), effect


def differences(test: Higher | Similar, reader: Reader) -> Evidence:
    """The evidence on differences from other systems: that each is above 0, or within a margin (both of its sides are
    tested)."""
    evidence = Evidence()
    for other, benchmarks, points in test.comparisons():
        asked = Comparison(test.model, test.system, other, benchmarks, test.metric, test.estimator)
        pair = compared(asked, reader, evidence)
        if pair is None:
            continue
        (shown, effect), size = pair, points / 100
        if isinstance(test, Similar):
            evidence.parts.append(replace(shown, paper=size, reference=f"margin ({test.whose})", margin=True))
            evidence.tests += [(effect.moved(sign, size), size) for sign in (1, -1)]
        else:
            evidence.parts.append(replace(shown, paper=size))
            evidence.tests.append((effect, size))
            if shown.other_estimator is not None and shown.other_estimator <= 0:
                evidence.unconfirmed.append(f"{shown.what}, by the {OTHER[test.estimator]} estimator")
    return evidence


def _disagreement(effect: Effect, other: Effect, estimator: str) -> str:
    """What the two estimators of Pass@k say differently, for which question; empty where they agree."""
    apart: dict[str, list[str]] = {}
    for question in QUESTIONS:
        said = [_side(each, question) for each in (effect, other)]
        if said[0] != said[1]:
            words = f"{said[0]} by the {estimator} estimator, {said[1]} by the {OTHER[estimator]} one"
            apart.setdefault(words, []).append(question)
    return "; ".join(f"{' and '.join(questions)}: {words}" for words, questions in apart.items())


def _side(effect: Effect, question: str) -> str:
    return ("above 0" if effect.estimate > 0 else "below 0") if effect.p(question) <= LEVEL else "not shown"


def _shown_pair(asked: Comparison, pairing: Pairing, effect: Effect, other_estimator: float | None) -> ShownEffect:
    """A pair's effect as the page shows it; the paper's value is the caller's."""
    reader, benchmarks = pairing.reader, pairing.benchmarks
    study, samples = reader.study, reader.study.size.evaluation.samples
    here, by_seed = Answer.of(effect), []
    for seed in pairing.seeds:
        means = [
            [reader.values(pairing.names[i, b, seed], asked.metric, asked.estimator).mean() for b in benchmarks]
            for i in (0, 1)
        ]
        by_seed.append(float(np.mean(means[0]) - np.mean(means[1])))
    metric = metric_name(asked.metric, samples)
    titles, model = [title_of(study, "benchmark", b) for b in benchmarks], title_of(study, "model", asked.model)
    on = "average of " + ", ".join(titles) if len(titles) > 1 else titles[0]
    files = [reader.results.relative(reader.results.evaluation(name).grades) for name in pairing.names.values()]
    return ShownEffect(
        what=f"{system_name(study, asked.system)} − {system_name(study, asked.other)}: {metric}, {on} ({model})",
        unit="points",
        estimate=float(effect.estimate),
        low=here.low,
        high=here.high,
        detectable=here.detectable,
        paper=0.0,
        seeds=len(pairing.seeds),
        a=pairing.mean(0, asked.estimator),
        b=pairing.mean(1, asked.estimator),
        p=here.p,
        beyond=Answer.of(effect, QUESTIONS[1]),
        n=samples,
        problems=sum(len(reader.right(pairing.names[0, b, pairing.seeds[0]])) for b in benchmarks),
        by_seed=tuple(by_seed),
        other_estimator=other_estimator,
        files=tuple(dict.fromkeys(files)),
        quantity=pairing.quantity(asked.estimator),
        note=_cautions(reader, asked.model, (asked.system, asked.other)),
    )


def _cautions(reader: Reader, model: str, systems: Sequence[System]) -> str:
    """What a reader of a comparison has to know: fidelity that differs, and a run that learned nothing."""
    study = reader.study
    asked = {system_name(study, s): study.run_id(s.method, model) for s in systems if s.method}
    runs = {name: run for name, run in asked.items() if run}
    mixed = mixed_fidelity({name: study.runs[run] for name, run in runs.items()})
    cautions = [f"mixed fidelity: {'; '.join(mixed)}"] if mixed else []
    cautions += [f"{s.row} comes from elsewhere: its training is one, seen once" for s in systems if s.row]
    for name, run in runs.items():
        if nothing := reader.run(run).learned_nothing:
            cautions.append(f"{name} learned nothing: {nothing}")
    return "; ".join(cautions)
