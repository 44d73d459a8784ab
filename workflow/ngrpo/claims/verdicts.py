"""What a study says of each claim: evidence, verdict, and what is missing with the command that makes it.

The rule that gives a verdict is ngrpo.statistics.decisions.judge. A scale that is no evidence about the paper shows
effects and gives no verdict. A claim that lacks any of its evidence is not run: nothing is filled in.
"""

from dataclasses import dataclass
from typing import Any

from ngrpo.claims.at_scale import at_scale, check_names, judged_here, shown_here
from ngrpo.claims.evidence import Evidence, Reader, ShownEffect
from ngrpo.claims.gathering import gather
from ngrpo.claims.predicates import Claim, read_claims
from ngrpo.errors import UserError
from ngrpo.statistics.decisions import VERDICTS, judge
from ngrpo.statistics.partial import judge_cells
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values
from ngrpo.study.scale_note import scale_note

REASONS = {
    "supported": "Every effect that the claim needs is there, over problems and over training seeds.",
    "contradicted": "An effect that the claim needs goes the other way.",
    "not supported": "An effect as large as the paper’s would have been seen, and wasn’t.",
    "underpowered": "An effect as large as the paper’s might not have been seen: more problems or seeds are needed.",
    "not run": "Evidence is missing.",
}
ONE_SEED = "One training seed: what another one would give isn’t known. Set `extra_seeds` in the scale’s file."


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its evidence. verdict: one of VERDICTS, or None at a scale that gives none."""

    id: str
    where: str
    family: str
    question: str
    says: str
    words: str | None
    """The paper's own word on which the reading rests."""
    limit: str | None
    """Whose the claim's margin or limit is, and why it lies there; None where it has none."""
    scale: str
    """Whose claim it is: the paper's, or a scale's own."""
    verdict: str | None
    reason: str
    parts: tuple[ShownEffect, ...] = ()
    missing: tuple[str, ...] = ()
    error: bool = False
    """Whether the claim names what doesn't exist."""
    same_as: str | None = None
    """Where no verdict is given: the claim before it that asks the same here."""


def judge_claims(study: Study, results: Results) -> list[ClaimResult]:
    """Every claim that is shown at the study's scale, in the configuration's order.

    Raises UserError for files that aren't readable.
    """
    if study.folder is None:
        return []
    paper, reader = read_paper_values(study.folder), Reader(study, results)
    judged: list[ClaimResult] = []
    first_with: dict[str, str] = {}
    for name, claim in read_claims(study.folder).items():
        try:
            check_names(name, claim, study, paper)
        except UserError as error:
            verdict = "not run" if study.size.verdicts or judged_here(claim, study) else None
            reason = f"The claim names what doesn’t exist: {error.what} ({error.do})."
            judged.append(_said(name, claim, verdict, reason, error=True))
            continue
        if shown_here(claim, study):
            judged.append(_result(name, claim, study, reader, first_with))
    return judged


def _said(name: str, claim: Claim, verdict: str | None, reason: str, **known: Any) -> ClaimResult:
    whose, why = getattr(claim.test, "whose", None), getattr(claim.test, "why", None)
    return ClaimResult(
        id=name,
        where=claim.where,
        family=claim.family,
        question=claim.question,
        says=claim.says,
        words=claim.words,
        limit=f"{'the paper’s' if whose == 'paper' else whose}: {why}" if whose else None,
        scale=claim.scale,
        verdict=verdict,
        reason=reason,
        **known,
    )


def _result(name: str, claim: Claim, study: Study, reader: Reader, first_with: dict[str, str]) -> ClaimResult:
    """One claim's result. first_with: what is asked here → the first claim that asks it, where a scale's one model
    stands in for several."""
    asked = ""
    try:
        test = at_scale(claim, study)
        asked = repr(test.model_dump(exclude={"paper", "whose", "why"}))
        evidence = gather(test, reader)
    except UserError as error:
        evidence = Evidence(missing=[f"{error.what}{f'; {error.do}' if error.do else ''}"])
    known = {"parts": tuple(evidence.parts), "missing": tuple(dict.fromkeys(evidence.missing))}
    if not judged_here(claim, study):
        first = first_with.setdefault(asked or name, name)
        if first != name:
            return _said(name, claim, None, f"The same is asked here as by {first}.", same_as=first)
        return _said(name, claim, None, f"No verdict ({scale_note(study.scale, False)}).", **known)
    if known["missing"]:
        return _said(name, claim, "not run", REASONS["not run"], **known)
    if evidence.cells:
        verdict = judge_cells(evidence.cells, evidence.at_least, evidence.replicated)
    else:
        effects, sizes = zip(*evidence.tests, strict=True)
        verdict = VERDICTS[int(judge(effects, sizes, evidence.replicated))]
    return _said(name, claim, verdict, REASONS[verdict] if evidence.replicated else ONE_SEED, **known)
