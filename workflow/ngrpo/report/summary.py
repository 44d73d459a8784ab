"""The top of the report page: facts, what can't be trusted, what is missing."""

from collections.abc import Iterator
from pathlib import Path

from ngrpo.audit.compliance import EVALUATIONS, Check
from ngrpo.audit.provenance import plain
from ngrpo.audit.status import RunState, read_grades
from ngrpo.claims.evidence import Finding
from ngrpo.report.diagnostics import measured
from ngrpo.report.words import short, title_of
from ngrpo.statistics.decisions import VERDICTS
from ngrpo.study.expand import Study


def claim_counts(claims: list[Finding]) -> list[tuple[str, int]]:
    """(verdict, number of claims) of the verdicts that occur."""
    given = [claim.verdict or "no verdict" for claim in claims]
    return [(verdict, given.count(verdict)) for verdict in (*VERDICTS, "no verdict") if verdict in given]


def checks_by_run(checks: list[Check]) -> list[tuple[str, list[Check]]]:
    """(run, its checks), in the runs' order."""
    return [(run, [c for c in checks if c.run == run]) for run in dict.fromkeys(c.run for c in checks)]


def facts(study: Study, runs: list[RunState], tables: list[dict], claims: list[Finding]) -> list[tuple[str, str]]:
    """What a reader wants to know first, besides the results."""
    models = ", ".join(title_of(study, "model", m) for m in study.size.models)
    names = dict.fromkeys(e.benchmark.id for e in study.evaluations.values())
    sizes = sorted({s for t in tables for g in t["groups"] if not g["average"] for s in g["size"]})
    rows = [("Base model" if len(study.size.models) == 1 else "Base models", models)]
    rows.append(("Measured on", ", ".join(title_of(study, "benchmark", b) for b in names)))
    rows.append(("Size", "; ".join(f"{p} problems × {n} samples" for p, n in sizes) or "nothing measured yet"))
    finished = sum(r.state == "finished" for r in runs)
    seeds = (study.study.seed, *study.size.extra_seeds)
    told = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"one seed ({seeds[0]})"
    rows.append(("Training runs", f"{finished} of {len(runs)} finished, with {told}"))
    if claims:
        rows.append(("Claims", ", ".join(f"{count} {verdict}" for verdict, count in claim_counts(claims))))
    worst = max(((r.over("parity_max", "max") or 0, r.spec.training.parity_limit) for r in runs), default=(0, 0))
    if worst[0]:
        rows.append(("Replay parity", f"worst {short(worst[0], 2)} of {plain(worst[1])} allowed"))
    counts = {r["evaluation"]: r["counts"] for t in tables for g in t["groups"] for r in g["rows"] if r["evaluation"]}
    known = [c for c in counts.values() if c]
    if known:
        rows.append(
            ("Grader errors", f"{sum(c['grader_error'] for c in known):,} of {sum(sum(c.values()) for c in known):,}")
        )
    return rows


def alerts(checks: list[Check]) -> list[str]:
    """What makes a result untrustworthy: every value that is off, a sentence a run."""
    told: dict[str, list[str]] = {}
    for c in checks:
        if c.state == "off":
            found = "nothing" if c.found is None else plain(c.found)
            note = f"; {c.note}" if c.note else ""
            text = f"{c.what}: {found} ({c.file}), where the {c.by} requires {plain(c.required)}{note}"
            told.setdefault("Evaluations" if c.run == EVALUATIONS else f"Run {c.run}", []).append(text)
    return [f"{who}: {'. '.join(texts)}." for who, texts in told.items()]


def unfinished(study: Study, results: Path, runs: list[RunState], tables: list[dict]) -> Iterator[tuple[str, str]]:
    """(what, note) of everything that the study asks for and that isn't there whole."""
    for run in runs:
        if run.state != "finished":
            yield f"Training run {run.id}", run.note
    for evaluation in study.evaluations:
        grades = read_grades(study, results, evaluation)
        if grades.status != "ok":
            yield f"Evaluation {evaluation}", f"{grades.status}: {grades.note}"
    for table in tables:
        if table["note"]:
            yield f"Table {table['id']}", table["note"]
    for found in measured(study, results):
        if found.note:
            yield f"What mixing feeds, {found.run}", found.note
