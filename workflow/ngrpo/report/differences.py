"""A table's paired differences: the same effects, intervals and p as the claims', over all training seeds.

`sampling` is the interval on these benchmarks (other training seeds and samples), `problems` that on problems like
these (`ngrpo.statistics.effects`). With one training seed nothing is known of what another run would give.
"""

from collections.abc import Sequence
from typing import Any

from ngrpo.claims.comparisons import Pairing, paired
from ngrpo.claims.evidence import Reader
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.paper_values import AVERAGE, metric_id
from ngrpo.study.products import Cell

Cells = Sequence[tuple[Cell, Cell]]
FEWER = "fewer than two problems: nothing is known of the error"


def difference_rows(
    reader: Reader, first: Sequence[Cell], second: Sequence[Cell], metrics: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """`second` minus `first` on each benchmark and, where there are several, on average with equal weights.

    first, second: a cell a benchmark, in the same order. metrics: of the headline, as rows have them.
    """
    parts = list(zip(first, second, strict=True))
    return [
        row for chosen in ([[pair] for pair in parts] + ([parts] if len(parts) > 1 else []))
        for row in _rows(reader, chosen, metrics)
    ]  # fmt: skip


def _rows(reader: Reader, parts: Cells, metrics: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """On one benchmark, or averaged over several."""
    study, alone = reader.study, len(parts) == 1
    a, b = parts[0]
    same: dict[str, Any] = {"label": b.label, "against": a.label, "model": b.model, "status": "ok", "note": ""}
    same |= {"n": study.evaluations[b.evaluation].samples, "benchmark": b.benchmark if alone else AVERAGE}
    if alone:
        same |= {"evaluation": b.evaluation, "spec": study.evaluations[b.evaluation].digest}
    lost = [_lost(reader, pair) for pair in parts]
    if any(lost):
        status, note = next(each for each in lost if each)
        named = ", ".join(pair[1].benchmark for pair, each in zip(parts, lost, strict=True) if each)
        same |= {"status": status, "note": note if alone else f"no average: {named} can't be used"}
        return [same | metric for metric in metrics]
    ours, theirs = ([pair[place].evaluation for pair in parts] for place in (1, 0))
    return [
        same | metric | numbers(paired(reader, ours, theirs, metric_id(metric["metric"])), metric["estimator"])
        for metric in metrics
    ]


def _lost(reader: Reader, pair: tuple[Cell, Cell]) -> tuple[str, str] | None:
    """Status and note where one of both evaluations can't be used."""
    for cell in pair:
        grades = reader.grades(cell.evaluation)
        if grades.frame is None:
            return grades.status, grades.note
        if len(reader.right(cell.evaluation)) < 2:
            return "incomplete", FEWER
    return None


def numbers(pairing: Pairing, estimator: str) -> dict[str, Any]:
    """A difference's numbers, under a table's columns."""
    effect = pairing.effect(estimator)
    row: dict[str, Any] = {"value": float(effect.estimate), "seeds": len(pairing.seeds)}
    row["quantity"] = pairing.quantity(estimator)
    row["problems"] = sum(len(pairing.reader.right(pairing.names[0, b, pairing.seeds[0]])) for b in pairing.benchmarks)
    columns = (("sampling", "p", "detectable"), ("problems", "problems_p", "problems_detectable"))
    for question, (interval, p, detectable) in zip(QUESTIONS, columns, strict=True):
        low, high = effect.interval(question=question)
        row |= {f"{interval}_low": float(low), f"{interval}_high": float(high)}
        row |= {p: float(effect.p(question)), detectable: float(effect.detectable(question))}
    return row
