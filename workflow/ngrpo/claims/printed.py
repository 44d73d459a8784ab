"""The differences that the paper's claims rest on, as the paper prints them: what the audit of its numbers weighs."""

from collections.abc import Iterator

from ngrpo.audit.paper_findings import Finding, PrintedDifference, findings
from ngrpo.audit.paper_noise import declared_noise
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.predicates import PAPER, Higher, System, read_claims


def paper_findings(study: Study) -> tuple[list[Finding], PaperValues] | None:
    """The audit of the paper's own numbers, or None where the configuration has none of them."""
    paper = read_paper_values(study.folder) if study.folder else None
    if paper is None or study.folder is None:
        return None
    return findings(paper, list(printed_differences(study, paper)), declared_noise(study.folder)), paper


def printed_differences(study: Study, paper: PaperValues) -> Iterator[PrintedDifference]:
    """The smallest difference of every claim of the paper that says "higher"."""
    for name, claim in (read_claims(study.folder) if study.folder else {}).items():
        test = claim.test
        if claim.scale != PAPER or not isinstance(test, Higher):
            continue
        other, benchmarks, points = min(test.comparisons(), key=_size)
        labels = [_label(s, test.model, benchmarks[0], test.metric, study, paper) for s in (test.system, other)]
        both = (labels[0], labels[1]) if labels[0] is not None and labels[1] is not None else None
        yield PrintedDifference(name, test.model, benchmarks, test.metric, points, both)


def _size(comparison: tuple[System, tuple[str, ...], float]) -> float:
    return comparison[2]


def _label(system: System, model: str, benchmark: str, metric: str, study: Study, paper: PaperValues) -> str | None:
    """Under which label the paper prints a system; None where it doesn't."""
    rows = [row for table in study.study.tables.values() for row in table.rows if not row.from_elsewhere]
    named = [row.label for row in rows if (row.method, row.decoding) == (system.method, system.decoding)]
    labels = [system.row] if system.row else named
    for table in paper.tables:
        for label in labels:
            if paper.value(table, model, label, benchmark, metric):
                return label
    return None
