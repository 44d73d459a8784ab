"""The paper's Tables 9 and 14 beside ours: who solves a problem with and without mixing, and what mixing costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ngrpo.audit.status import RunState
from ngrpo.claims.evidence import Reader, ShownEffect
from ngrpo.claims.quantities import explored_beside
from ngrpo.claims.verdicts import ClaimResult
from ngrpo.report.names import place_title
from ngrpo.statistics.crossed import share_interval
from ngrpo.statistics.decisions import over_runs
from ngrpo.statistics.sign_tests import sign_test_p
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import PaperValues
from ngrpo.study.products import Cell
from ngrpo.study.titles import title_of

OUTCOMES = (
    ("both", "both"),
    ("standard_only", "standard alone"),
    ("mixing_only", "mixing alone"),
    ("neither", "neither"),
)
"""(of `PaperValues.paired`, as the page's column)."""
FLIPS = {"standard_only": "lost", "mixing_only": "gained"}
"""The outcomes that the page's exploration has, too, where its reference is the same policy without mixing."""
SLOWDOWN = "table14"
"""The family of the claims on Table 14."""


@dataclass(frozen=True)
class Solved:
    """A share of problems, with its 95 % interval over problems."""

    count: int
    value: float
    low: float
    high: float
    quantity: str
    """What it is a share of (ngrpo.claims.quantities); empty where no other part of the page has it."""


@dataclass(frozen=True)
class Rate:
    """Response tokens a second on each device of a run, with the 95 % interval of its mean over steps."""

    run: str
    value: float
    low: float
    high: float


def paired_outcomes(
    study: Study, results: Results, paper: PaperValues | None, reader: Reader | None = None
) -> Iterator[dict[str, Any]]:
    """Table 9: for every policy that is decoded with and without neighbor mixing, problems by which of both solves them
    in some sample; beside the paper's shares, which are of the base model on the benchmark that chooses checkpoints."""
    reader = reader or Reader(study, results)
    for standard, mixing in _pairs(study):
        frames = [reader.grades(cell.evaluation).frame for cell in (standard, mixing)]
        solved = [_solved(frame) for frame in frames if frame is not None]
        if len(solved) < 2:
            continue
        both = pd.concat(solved, axis=1, join="inner", keys=["standard", "mixing"])
        flips = {name: explored_beside(kind, mixing.evaluation, standard.evaluation) for name, kind in FLIPS.items()}
        outcomes = _outcomes(both["standard"].to_numpy(), both["mixing"].to_numpy(), flips)
        spec = study.evaluations[standard.evaluation]
        printed = (
            paper is not None and spec.policy.type == "model" and standard.benchmark == paper.evaluation.validation
        )
        yield {
            "system": standard.label,
            "where": place_title(study, standard.model, standard.benchmark),
            "size": len(both),
            "samples": spec.samples,
            "shares": [outcomes[name] for name, _ in OUTCOMES],
            "p": sign_test_p(outcomes["mixing_only"].count, outcomes["standard_only"].count),
            "evaluations": [standard.evaluation, mixing.evaluation],
            "paper": [getattr(paper.paired, name) for name, _ in OUTCOMES] if printed and paper else None,
        }


def _pairs(study: Study) -> list[tuple[Cell, Cell]]:
    """Cells of the same policy on the same benchmark, decoded without mixing and with neighbor mixing."""
    plain: dict[tuple[str, str], Cell] = {}
    mixed: dict[tuple[str, str], Cell] = {}
    for cell in (cell for cells in study.cells.values() for cell in cells):
        spec = study.evaluations[cell.evaluation]
        of = mixed if spec.decoding.mixer.needs_table else plain if spec.decoding.mixer.kind == "none" else {}
        of.setdefault((spec.policy.id, cell.benchmark), cell)
    return [(plain[key], cell) for key, cell in mixed.items() if key in plain]


def _solved(frame: pd.DataFrame) -> pd.Series:
    """Whether any of a problem's samples is right, by problem."""
    return (frame["grade"] == "correct").groupby(frame["problem_id"].astype(str)).any()


def _outcomes(standard: np.ndarray, mixing: np.ndarray, quantities: Mapping[str, str]) -> dict[str, Solved]:
    masks = (standard & mixing, standard & ~mixing, ~standard & mixing, ~standard & ~mixing)
    return {
        name: Solved(int(mask.sum()), float(mask.mean()), *share_interval(mask.astype(float)), quantities.get(name, ""))
        for (name, _), mask in zip(OUTCOMES, masks, strict=True)
    }


def slowdowns(
    study: Study, runs: Sequence[RunState], claims: Sequence[ClaimResult], paper: PaperValues | None
) -> Iterator[dict[str, Any]]:
    """Table 14: rates of rollouts without and with mixing, and the slowdown as the claim on it has it."""
    states = {run.id: run for run in runs}
    for claim in claims:
        if claim.family != SLOWDOWN or not claim.parts or claim.same_as:
            continue
        part: ShownEffect = claim.parts[0]
        mixing, standard = (states[file.split("/")[1]] for file in part.files[:2])
        model = standard.spec.model.id
        rates = [_rate(run) for run in (standard, mixing)]
        if all(rates):
            shown = {"model": title_of(study, "model", model), "rates": rates, "slowdown": part, "claim": claim.id}
            yield shown | {"paper": paper.throughput.get(model) if paper else None}


def _rate(run: RunState) -> Rate | None:
    values = run.log["throughput"].dropna().to_numpy() if "throughput" in run.log else np.array([])
    if len(values) < 2:
        return None
    effect = over_runs([values])
    low, high = effect.interval()
    return Rate(run.id, float(effect.estimate), float(low), float(high))
