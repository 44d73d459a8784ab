"""What a study says of each claim: evidence, verdict, and what is missing with the command that makes it.

The rule that gives a verdict is ngrpo.statistics.decisions.judge. A scale that is no evidence about the paper shows
effects and gives no verdict. A claim that lacks any of its evidence is not run: nothing is filled in.
"""

from dataclasses import dataclass, replace

from ngrpo.claims.evidence import Evidence, Reader, ShownEffect, gather
from ngrpo.claims.predicates import Claim, at_scale, check_names, read_claims
from ngrpo.errors import UserError
from ngrpo.statistics.decisions import VERDICTS, judge
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
    says: str
    verdict: str | None
    reason: str
    parts: tuple[ShownEffect, ...] = ()
    missing: tuple[str, ...] = ()
    error: bool = False
    """Whether the claim names what doesn't exist."""
    same_as: str | None = None
    """At a scale without verdicts: the claim before it that has the same evidence here."""


def judge_claims(study: Study, results: Results) -> list[ClaimResult]:
    """Every claim of the study's configuration, in its order. Raises UserError for files that aren't readable."""
    if study.folder is None:
        return []
    paper, reader = read_paper_values(study.folder), Reader(study, results)
    judged: list[ClaimResult] = []
    first_with: dict[str, str] = {}
    for name, claim in read_claims(study.folder).items():
        try:
            check_names(name, claim, study, paper)
        except UserError as error:
            verdict = "not run" if study.size.verdicts else None
            reason = f"The claim names what doesn’t exist: {error.what} ({error.do})."
            judged.append(ClaimResult(name, claim.where, claim.says, verdict, reason, error=True))
            continue
        judged.append(_result(name, claim, study, reader, first_with))
    return judged


def _result(name: str, claim: Claim, study: Study, reader: Reader, first_with: dict[str, str]) -> ClaimResult:
    """One claim's result. first_with: evidence → the first claim with it, where a scale's one model stands in for
    several."""
    try:
        evidence = gather(at_scale(claim.test, study), reader)
    except UserError as error:
        evidence = Evidence(missing=[f"{error.what}{f'; {error.do}' if error.do else ''}"])
    parts, missing = tuple(evidence.parts), tuple(dict.fromkeys(evidence.missing))
    if not study.size.verdicts:
        first = first_with.setdefault(repr((missing, [replace(part, paper=0.0) for part in parts])), name)
        if first != name:
            reason = f"The same evidence here as for {first}."
            return ClaimResult(name, claim.where, claim.says, None, reason, same_as=first)
        reason = f"No verdict ({scale_note(study.scale, False)})."
        return ClaimResult(name, claim.where, claim.says, None, reason, parts, missing)
    if missing:
        return ClaimResult(name, claim.where, claim.says, "not run", REASONS["not run"], parts, missing)
    effects, sizes = zip(*evidence.tests, strict=True)
    verdict = VERDICTS[int(judge(effects, sizes, evidence.replicated))]
    reason = REASONS[verdict] if evidence.replicated else ONE_SEED
    return ClaimResult(name, claim.where, claim.says, verdict, reason, parts)
