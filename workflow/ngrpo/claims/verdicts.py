"""What a study says of each claim: evidence, verdict, and what is missing with the command that makes it.

The rule that gives a verdict is ngrpo.statistics.decisions.verdict; each claim gets one for either question, with its p
adjusted for the other claims of its family and for how often was looked. A scale that is no evidence about the paper
shows effects and gives no verdict. A claim that lacks any of its evidence is not run: nothing is filled in.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ngrpo.claims.at_scale import at_scale, check_names, judged_here, shown_here
from ngrpo.claims.evidence import Evidence, Reader, ShownEffect
from ngrpo.claims.gathering import gather
from ngrpo.claims.looks import Seen, read_looks
from ngrpo.errors import UserError
from ngrpo.statistics.decisions import LEVEL, VERDICTS, Weighed, weigh
from ngrpo.statistics.decisions import verdict as verdict_of
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.multiplicity import Look, add_look, any_time_p, holm
from ngrpo.statistics.partial import weigh_cells
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.paper_values import read_paper_values
from ngrpo.study.predicate_text import limit_text
from ngrpo.study.predicates import PAPER, Claim, read_claims
from ngrpo.study.scale_note import scale_note

SIDES = ("for", "against")
REASONS = {
    "supported": "Every effect that the claim needs is there.",
    "contradicted": "An effect that the claim needs goes the other way.",
    "not supported": "An effect as large as {whose} would have been seen, and wasn’t.",
    "underpowered": "An effect as large as {whose} might not have been seen: more problems or seeds are needed.",
    "not run": "Evidence is missing.",
}
ONE_SEED = (
    "One training seed: the interval is that of this run’s samples; what another run would give isn’t known, on these"
    " benchmarks or on others. Set `seeds` in the scale’s file."
)
FAMILY = "Taken alone its p would do; not as one of {count} claims of {family} (Holm), looked at {looks}."
UNCONFIRMED = "Above 0 by the claim’s own estimator of Pass@k alone; not above 0: {what}."


@dataclass(frozen=True)
class QuestionVerdict:
    """A claim's verdict for one of ngrpo.statistics.effects.QUESTIONS."""

    question: str
    verdict: str
    p: float
    """Two-sided, of the claim alone, looked at once: for it the largest of the effects that it needs, or, if that is
    less, against it."""
    adjusted: float
    """The same, adjusted for the claims of its family and for the looks so far."""
    looks: int
    """How often the data were looked at, this time included."""
    family: int
    """Claims of its family."""


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
    """What evidence is missing: all of it where the claim isn't run, else of training seeds that are left out."""
    error: bool = False
    """Whether the claim names what doesn't exist."""
    questions: tuple[QuestionVerdict, ...] = ()
    """The verdicts for both questions; `verdict` is that for the claim's own."""
    same_as: str | None = None
    """Where no verdict is given: the claim before it that asks the same here."""


@dataclass(frozen=True)
class _Open:
    """A claim whose evidence is there: what it says for each question, before the others of its family are known."""

    result: ClaimResult
    evidence: Evidence
    weighed: dict[str, Weighed]
    looks: dict[str, dict[str, list[Look]]]
    """Question → "for" or "against" → looks, the present one last."""


def judge_claims(study: Study, results: Results) -> list[ClaimResult]:
    """Every claim that is shown at the study's scale, in the configuration's order. Nothing is recorded.

    Raises UserError for files that aren't readable.
    """
    return look_at_claims(study, results)[0]


def look_at_claims(study: Study, results: Results, reader: Reader | None = None) -> tuple[list[ClaimResult], Seen]:
    """The claims as `judge_claims`, and what was seen, to be recorded. reader: of this study, where there is one."""
    if study.folder is None:
        return [], {}
    paper, before = read_paper_values(study.folder), read_looks(results)
    reader = reader or Reader(study, results)
    judged: list[ClaimResult | _Open] = []
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
            judged.append(_result(name, claim, study, reader, first_with, before.get(name, {})))
    seen = {
        each.result.id: {q: {side: looks[-1] for side, looks in sides.items()} for q, sides in each.looks.items()}
        for each in judged
        if isinstance(each, _Open) and each.evidence.replicated
    }
    return _with_families(judged), seen


def _with_families(judged: Sequence[ClaimResult | _Open]) -> list[ClaimResult]:
    """Verdicts, each p adjusted within its family; a claim of it that isn't run yet counts with p = 1."""
    known = [each.result if isinstance(each, _Open) else each for each in judged]
    adjusted: dict[tuple[str, str, str], float] = {}
    for family, question, side in product(dict.fromkeys(c.family for c in known), QUESTIONS, SIDES):
        p = {c.id: 1.0 for c in known if c.family == family and c.verdict is not None}
        p |= {
            each.result.id: any_time_p(each.looks[question][side])
            for each in judged
            if isinstance(each, _Open) and each.result.family == family
        }
        adjusted |= {(name, question, side): value for name, value in holm(p).items()}
    sizes = Counter(c.family for c in known if c.verdict is not None)
    return [_closed(each, adjusted, sizes[each.result.family]) if isinstance(each, _Open) else each for each in judged]


def _closed(case: _Open, adjusted: dict[tuple[str, str, str], float], family: int) -> ClaimResult:
    result, replicated = case.result, case.evidence.replicated
    answers = []
    for question, weighed in case.weighed.items():
        two = tuple(adjusted[result.id, question, side] for side in SIDES)
        given = VERDICTS[int(verdict_of(weighed, replicated, (two[0], two[1])))]
        unconfirmed = given == "supported" and bool(case.evidence.unconfirmed)
        given = "underpowered" if unconfirmed else given
        one = [float(weighed.p_for), float(weighed.p_against)]
        side, looks = one.index(min(one)), len(case.looks[question]["for"])
        answers.append(QuestionVerdict(question, given, min(1.0, 2 * one[side]), two[side], looks, family))
    own = next(a for a in answers if a.question.endswith(result.question))
    whose = "the paper’s" if result.scale == PAPER else "the claim’s"
    reason = REASONS[own.verdict].format(whose=whose) if replicated else ONE_SEED
    if replicated and own.p <= LEVEL < own.adjusted:
        times = "once" if own.looks == 1 else f"{own.looks} times"
        reason = FAMILY.format(count=family, family=result.family, looks=times)
    elif replicated and own.verdict == "underpowered" and case.evidence.unconfirmed and own.adjusted <= LEVEL:
        reason = UNCONFIRMED.format(what="; ".join(case.evidence.unconfirmed))
    reason = " ".join([reason, *(f"The estimators disagree: {note}." for note in case.evidence.notes)])
    return replace(result, verdict=own.verdict, reason=reason, questions=tuple(answers))


def _said(name: str, claim: Claim, verdict: str | None, reason: str, **known: Any) -> ClaimResult:
    return ClaimResult(
        id=name,
        where=claim.where,
        family=claim.family,
        question=claim.question,
        says=claim.says,
        words=claim.words,
        limit=limit_text(claim.test),
        scale=claim.scale,
        verdict=verdict,
        reason=reason,
        **known,
    )


def _result(
    name: str,
    claim: Claim,
    study: Study,
    reader: Reader,
    first_with: dict[str, str],
    before: dict[str, dict[str, list[Look]]],
) -> ClaimResult | _Open:
    """One claim's result, or what it takes to judge it. first_with: what is asked here → the first claim that asks it,
    where a scale's one model stands in for several; before: the claim's looks."""
    asked = ""
    try:
        test = at_scale(claim, study)
        asked = repr(test.model_dump(exclude={"paper", "whose", "why"}))
        evidence = gather(test, reader)
    except UserError as error:
        evidence = Evidence(missing=[f"{error.what}{f'; {error.do}' if error.do else ''}"])
    known = {"parts": tuple(evidence.parts), "missing": tuple(dict.fromkeys((*evidence.missing, *evidence.unused)))}
    if not judged_here(claim, study):
        first = first_with.setdefault(asked or name, name)
        if first != name:
            return _said(name, claim, None, f"The same is asked here as by {first}.", same_as=first)
        return _said(name, claim, None, f"No verdict ({scale_note(study.scale, False)}).", **known)
    if evidence.missing:
        return _said(name, claim, "not run", REASONS["not run"], **known)
    seeds = tuple(_digest(evidence.seen[place]) for place in sorted(evidence.seen)) or ("all",)
    weighed, looks = {}, {}
    for question in QUESTIONS:
        if evidence.cells:
            weighed[question] = weigh_cells(evidence.cells, evidence.at_least, question)
        else:
            weighed[question] = weigh(evidence.tests, question)
        p = {"for": weighed[question].p_for, "against": weighed[question].p_against}
        past = before.get(question, {})
        looks[question] = {side: add_look(past.get(side, []), Look(seeds, float(p[side]))) for side in SIDES}
    return _Open(_said(name, claim, "underpowered", "", **known), evidence, weighed, looks)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]
