"""The top of the report page: facts, what can't be trusted, what is missing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ngrpo.audit.compliance import EVALUATIONS, ComplianceCheck
from ngrpo.audit.status import RunState, share_of_limit
from ngrpo.claims.evidence import Reader
from ngrpo.claims.verdicts import ClaimResult
from ngrpo.formatting import plain, seeds_text, short
from ngrpo.report.diagnostics import read_diagnostics
from ngrpo.statistics.decisions import VERDICTS
from ngrpo.study.expand import Study
from ngrpo.study.titles import title_of


def claim_counts(claims: list[ClaimResult]) -> list[tuple[str, int]]:
    """(verdict, number of claims) of the verdicts that occur."""
    given = [claim.verdict or "no verdict" for claim in claims]
    return [(verdict, given.count(verdict)) for verdict in (*VERDICTS, "no verdict") if verdict in given]


@dataclass(frozen=True)
class RequiredValue:
    """A requirement that several runs share."""

    what: str
    by: str
    required: Any
    """None where each run has its own."""
    ok: int
    """Runs that meet it."""
    of: int


def required_values(checks: list[ComplianceCheck]) -> list[RequiredValue]:
    """Each requirement once, with how many runs meet it, in the order of the checks."""
    shared: dict[tuple[str, str], list[ComplianceCheck]] = {}
    for check in checks:
        shared.setdefault((check.what, check.by), []).append(check)
    return [
        RequiredValue(
            what,
            by,
            same[0].required if all(c.required == same[0].required for c in same) else None,
            sum(c.state == "ok" for c in same),
            len(same),
        )
        for (what, by), same in shared.items()
    ]


def facts(
    study: Study, runs: list[RunState], tables: list[dict[str, Any]], claims: list[ClaimResult]
) -> list[tuple[str, str]]:
    """What a reader wants to know first, besides the results."""
    models = ", ".join(title_of(study, "model", m) for m in study.size.models)
    names = dict.fromkeys(e.benchmark.id for e in study.evaluations.values())
    sizes = sorted({s for t in tables for g in t["groups"] if not g["average"] for s in g["size"]})
    rows = [("Base model" if len(study.size.models) == 1 else "Base models", models)]
    rows.append(("Measured on", ", ".join(title_of(study, "benchmark", b) for b in names)))
    rows.append(("Size", "; ".join(f"{p} problems × {n} samples" for p, n in sizes) or "nothing measured yet"))
    finished = sum(r.state == "finished" for r in runs)
    trained_with = seeds_text({len(seeds) for seeds in study.seeds_of_runs.values()})
    rows.append(("Training runs", f"{finished} of {len(runs)} finished, with {trained_with}"))
    if claims:
        rows.append(("Claims", ", ".join(f"{count} {verdict}" for verdict, count in claim_counts(claims))))
    replaying = [r for r in runs if r.spec.exploration.replayed]
    parities = [r.parity for r in replaying if r.parity.worst]
    if parities:
        worst = max(parities, key=share_of_limit)
        rows.append(("Replay parity", f"worst {short(worst.worst, 2)} of {plain(worst.limit)} allowed ({worst.what})"))
    counts = {r["evaluation"]: r["counts"] for t in tables for g in t["groups"] for r in g["rows"] if r["evaluation"]}
    known = [c for c in counts.values() if c]
    if known:
        rows.append(
            ("Grader errors", f"{sum(c['grader_error'] for c in known):,} of {sum(sum(c.values()) for c in known):,}")
        )
    return rows


def alerts(checks: list[ComplianceCheck]) -> list[str]:
    """What makes a result untrustworthy: every value that is off, a sentence a run."""
    sentences: dict[str, list[str]] = {}
    for c in checks:
        if c.state == "off":
            recorded = "nothing" if c.recorded is None else plain(c.recorded)
            note = f"; {c.note}" if c.note else ""
            text = f"{c.what}: {recorded} ({c.file}), where the {c.by} requires {plain(c.required)}{note}"
            sentences.setdefault("Evaluations" if c.run == EVALUATIONS else f"Run {c.run}", []).append(text)
    return [f"{who}: {'. '.join(texts)}." for who, texts in sentences.items()]


def unfinished(
    study: Study, reader: Reader, runs: list[RunState], tables: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """(what, note) of everything that the study asks for and that isn't there whole."""
    for run in runs:
        if run.state != "finished":
            yield f"Training run {run.id}", run.note
    for evaluation in study.evaluations:
        grades = reader.grades(evaluation)
        if grades.status != "ok":
            yield f"Evaluation {evaluation}", f"{grades.status}: {grades.note}"
    for table in tables:
        if table["note"]:
            yield f"Table {table['id']}", table["note"]
    for diagnostics in read_diagnostics(study, reader.results):
        if diagnostics.note:
            yield f"What mixing feeds, {diagnostics.run}", diagnostics.note
