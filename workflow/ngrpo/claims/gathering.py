"""The evidence on every kind of predicate: ngrpo.claims.comparisons has comparisons, ngrpo.claims.logs logs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ngrpo.audit.status import command
from ngrpo.claims.comparisons import Comparison, compared, differences
from ngrpo.claims.evidence import Answer, Evidence, Reader, ShownEffect, digest_of, system_name
from ngrpo.claims.logs import logged, slowdown
from ngrpo.claims.quantities import flips_of, lost_of
from ngrpo.errors import UserError
from ngrpo.files import read_json
from ngrpo.statistics.crossed import mean_of_values
from ngrpo.statistics.decisions import LEAST_SEEDS
from ngrpo.statistics.effects import QUESTIONS, Effect
from ngrpo.study.predicates import Diagnosed, Higher, Logged, LosesNone, Most, Predicate, Similar, Slowdown
from ngrpo.study.titles import title_of


def gather(test: Predicate, reader: Reader) -> Evidence:
    """The evidence on a predicate at its study's scale. Raises UserError for evaluations that can't be compared."""
    return _KINDS[type(test)](cast(Any, test), reader)


def most(test: Most, reader: Reader) -> Evidence:
    """The evidence on a lead over each of several systems in each cell benchmark × metric."""
    evidence, lead = Evidence(at_least=test.at_least), test.lead / 100
    for benchmark, metric in test.cells:
        cell: list[tuple[Effect, float]] = []
        for other in test.than:
            asked = Comparison(test.model, test.system, other, (benchmark,), metric, test.estimator)
            pair = compared(asked, reader, evidence)
            if pair:
                evidence.parts.append(replace(pair[0], paper=lead, reference=f"lead to be seen ({test.whose})"))
                cell.append((pair[1], lead))
        evidence.cells.append(cell)
    return evidence


def loses_none(test: LosesNone, reader: Reader) -> Evidence:
    """The evidence on the share of problems that `than` solves in any of its samples and `system` in none."""
    evidence, pair = Evidence(), (test.system, test.than)
    limit = test.at_most / 100
    for benchmark in test.benchmarks:
        rows, files = [], []
        common = reader.common(pair, test.model, (benchmark,), evidence)
        if common is None:
            continue
        for seed in common.seeds:
            names = [common.names[place, benchmark, seed] for place in (0, 1)]
            ours, theirs = (reader.values(name, "mean", test.estimator) for name in names)
            if not ours.index.equals(theirs.index):
                raise UserError(f"on {benchmark} the two evaluations hold different problems")
            rows.append(((theirs > 0) & (ours == 0)).to_numpy(dtype=float))
            evidence.saw(seed, digest_of(rows[-1]))
            files += [reader.results.relative(reader.results.evaluation(name).grades) for name in names]
        if any(s.method for s in pair) and len(rows) < LEAST_SEEDS:
            evidence.replicated = False
        effect = mean_of_values(np.stack(rows), trained=any(s.method for s in pair))
        who = [system_name(reader.study, s) for s in reversed(pair)]
        on, model = title_of(reader.study, "benchmark", benchmark), title_of(reader.study, "model", test.model)
        what = f"Problems that {who[0]} solves and {who[1]} doesn’t, of all: {on} ({model})"
        part = _share(effect, what, limit, f"at most ({test.whose})", len(rows[0]), files)
        first = [common.names[place, benchmark, common.seeds[0]] for place in (0, 1)]
        size = reader.study.size.evaluation.samples
        evidence.parts.append(replace(part, seeds=len(rows), n=size, note=common.note,
                                      quantity=lost_of(first[0], first[1], len(rows))))  # fmt: skip
        evidence.tests.append((effect.moved(-1, limit), limit))
    return evidence


def diagnosed(test: Diagnosed, reader: Reader) -> Evidence:
    """The evidence on a share that `ngrpo diagnostics` counted: tokens are to it what problems are to a benchmark."""
    evidence, study = Evidence(), reader.study
    run = study.run_id(test.method, test.model)
    path = reader.results.diagnostics(run) if run else None
    if run is None or path is None:
        evidence.missing.append(f"no table of scale {study.scale} trains {test.method} on {test.model}")
        return evidence
    make = command(study, reader.results, path)
    data = read_json(path) if path.exists() else {}
    tokens = data.get("tokens", [])
    if not data:
        evidence.missing.append(f"Diagnostics of {run}: not measured yet; made by: {make}")
    elif data.get("spec") != study.runs[run].digest or any(test.share not in token for token in tokens):
        evidence.missing.append(f"Diagnostics of {run}: measured by another version; remade by: {make}")
    elif len(tokens) < 2:
        evidence.missing.append(f"Diagnostics of {run}: fewer than two tokens were mixed")
    if evidence.missing:
        return evidence
    effect = mean_of_values(np.array([[token[test.share] for token in tokens]], dtype=float), trained=False)
    sign, limit = test.limit
    fed = {"noise_flips": "Noisy embeddings", "mixture_flips": "Mixtures"}[test.share]
    side = "at least" if sign > 0 else "at most"
    what = f"{fed} that lie nearest to another token than their own ({title_of(study, 'model', test.model)})"
    part = _share(effect, what, limit, f"{side} ({test.whose})", len(tokens), [reader.results.relative(path)])
    evidence.parts.append(replace(part, quantity=flips_of(run, test.share.removesuffix("_flips"))))
    evidence.tests.append((effect.moved(sign, -sign * limit), limit))
    return evidence


def _share(effect: Effect, what: str, limit: float, reference: str, size: int, files: list[str]) -> ShownEffect:
    low, high = effect.interval()
    beyond = Answer.of(effect, QUESTIONS[1])
    return ShownEffect(
        what=what,
        unit="share",
        estimate=float(effect.estimate),
        low=max(0.0, float(low)),
        high=min(1.0, float(high)),
        p=None,
        beyond=replace(beyond, low=max(0.0, beyond.low), high=min(1.0, beyond.high), p=None),
        detectable=float(effect.detectable()),
        paper=limit,
        seeds=1,
        problems=size,
        reference=reference,
        files=tuple(dict.fromkeys(files)),
    )


_KINDS: dict[type, Callable[[Any, Reader], Evidence]] = {
    Higher: differences,
    Similar: differences,
    Most: most,
    LosesNone: loses_none,
    Logged: logged,
    Diagnosed: diagnosed,
    Slowdown: slowdown,
}
