"""Whether what a claim names exists, and what stands in for the paper's models and benchmarks at another scale."""

from collections.abc import Iterable

from ngrpo.errors import UserError, name_hint, unknown_name
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues
from ngrpo.study.predicates import (
    FILE,
    PAPER,
    Claim,
    Compared,
    Diagnosed,
    Higher,
    Logged,
    Most,
    Predicate,
    Similar,
    metrics_of,
    systems_of,
)
from ngrpo.study.run_log import LOGGED
from ngrpo.study.seeds import judged, scales_of


def check_names(name: str, claim: Claim, study: Study, paper: PaperValues | None) -> None:
    """Raises UserError, with the nearest id, for a scale, method, decoding, model, benchmark or metric that doesn't
    exist. A model or benchmark of the paper exists although this scale may not have it.
    """
    test, where = claim.test, f"{FILE}: claims.{name}"

    def known(kind: str, wanted: str, names: Iterable[str]) -> None:
        if wanted not in set(names):
            raise unknown_name(kind, wanted, names, where=where)

    here = claim.scale in (study.scale, PAPER)  # another scale's own models and data sets are in its own file
    known("scale", claim.scale, scales_of(study.folder) or {claim.scale})
    for system in systems_of(test):
        if system.method is not None:
            known("method", system.method, study.study.methods)
        known("decoding", system.decoding, study.study.decodings)
        if system.row is not None and here:
            known("row from elsewhere", system.row, {label for label, _, _ in study.from_elsewhere})
    papers = (paper.models, paper.benchmarks) if paper and claim.scale == PAPER else (set(), set())
    if here:
        known("model", test.model, {*study.models, *papers[0]})
    if isinstance(test, Compared) and here:
        for benchmark in test.benchmarks:
            known("benchmark", benchmark, {*study.datasets, *papers[1]})
    if isinstance(test, Logged):
        known("logged metric", test.metric, set(LOGGED) - {"step"})
    if isinstance(test, Diagnosed) and not study.study.methods[test.method].exploration.needs_table:
        mixing = [i for i, m in study.study.methods.items() if m.exploration.needs_table]
        raise UserError(f"method '{test.method}' mixes no neighbors", where=where, do=name_hint(test.method, mixing))


def judged_here(claim: Claim, study: Study) -> bool:
    """Whether a claim gets a verdict at this study's scale: see ngrpo.study.seeds.judged."""
    return judged(claim, study.scale, study.size)


def shown_here(claim: Claim, study: Study) -> bool:
    """Whether a claim is shown at this study's scale: the paper's at every one, another scale's own nowhere else."""
    return claim.scale in (PAPER, study.scale)


def at_scale(claim: Claim, study: Study) -> Predicate:
    """A claim's predicate at this study's scale: itself where it is judged, else with the scale's model and sizes.

    Raises UserError, saying what this scale lacks, where it can't be asked here.
    """
    test = claim.test
    if judged_here(claim, study):
        lacking = [] if test.model in study.models else [test.model]
        if isinstance(test, Compared):
            lacking += [name for name in dict.fromkeys(test.benchmarks) if name not in study.datasets]
        for metric in metrics_of(test):
            tries = int(metric.partition("@")[2] or 1)
            if tries > study.size.evaluation.samples:
                raise UserError(f"{metric} needs {tries} samples a problem; this scale takes fewer")
        if lacking:
            raise UserError(
                f"this scale has no {', '.join(lacking)}",
                where=f"scales/{study.scale}.yaml",
                do="add it there, and a table that measures it to study.yaml",
            )
        return test
    changes: dict[str, object] = {"model": test.model if test.model in study.models else next(iter(study.models))}
    metrics = tuple(dict.fromkeys(_possible(metric, study) for metric in metrics_of(test)))
    if isinstance(test, Compared) and not set(test.benchmarks) <= set(study.datasets):
        changes["benchmarks"] = study.size.benchmarks
    if isinstance(test, Most):
        cells = len(metrics) * len(study.size.benchmarks if "benchmarks" in changes else test.benchmarks)
        changes |= {"metrics": metrics, "at_least": min(test.at_least, cells), "paper": min(test.paper, cells)}
    elif isinstance(test, Higher | Similar):
        changes |= {"metric": metrics[0], "each": False}
        if isinstance(test, Higher):
            changes["paper"] = test.paper[: len(test.than)]
    return test.model_copy(update=changes)


def _possible(metric: str, study: Study) -> str:
    name, _, k = metric.partition("@")
    return f"{name}@{min(int(k), study.size.evaluation.samples)}" if k else name
