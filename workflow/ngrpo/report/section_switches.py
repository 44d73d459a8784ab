"""What a switch between paper and released code changed, where a study ran both sides."""

from typing import Any

from ngrpo.audit.fidelity import switched_pairs
from ngrpo.claims.comparisons import paired
from ngrpo.claims.evidence import Reader
from ngrpo.report.differences import numbers
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import metric_id


def switch_effects(study: Study, results: Results, reader: Reader | None = None) -> list[dict[str, Any]]:
    """What differs between two runs and what came of it: {paper, other, switches, rows, missing}.

    rows: the paired comparison on each benchmark under standard decoding, other minus paper, over all training seeds:
    benchmark, metric, estimator, files and `ngrpo.report.differences.numbers`. missing: evaluations that can't be used,
    with their commands.
    """
    reader = reader or Reader(study, results)
    return [
        {"paper": one, "other": other, "switches": switches, **_changed(reader, one, other)}
        for one, other, switches in switched_pairs(study)
    ]


def _changed(reader: Reader, one: str, other: str) -> dict[str, Any]:
    study, rows, missing = reader.study, [], []
    for name, spec in study.evaluations.items():
        second = f"{other}/{spec.decoding_id}/{spec.benchmark.id}"
        if spec.policy.id != one or spec.decoding.mixer.mixes or second not in study.evaluations:
            continue
        lost = {e: reader.grades(e) for e in (name, second) if reader.grades(e).frame is None}
        missing += [f"Evaluation {e}: {grades.status}: {grades.note}" for e, grades in lost.items()]
        if not lost and len(reader.right(name)) > 1:
            rows += _rows(reader, spec.benchmark.id, name, second)
    return {"rows": rows, "missing": missing}


def _rows(reader: Reader, benchmark: str, name: str, second: str) -> list[dict[str, Any]]:
    size, rows = reader.study.size.evaluation, []
    asked = [(f"Mean@{size.samples}", ("mean",))]
    asked += [(f"Pass@{k}", ("unbiased", "bootstrap")) for k in size.pass_at if k > 1]
    for metric, estimators in asked:
        pairing = paired(reader, [second], [name], metric_id(metric))
        files = [reader.results.relative(reader.results.evaluation(e).grades) for e in pairing.names.values()]
        same = {"benchmark": benchmark, "metric": metric, "files": list(dict.fromkeys(files))}
        rows += [same | {"estimator": e} | numbers(pairing, e) for e in estimators]
    return rows
