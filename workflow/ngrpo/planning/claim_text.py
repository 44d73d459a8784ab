"""`ngrpo claim` as text: all claims with their verdicts, or one of them with everything that is known of it.

Nothing is recorded: a verdict read here is that of a report made now, and no look.
"""

from collections import Counter
from collections.abc import Iterator

from ngrpo.audit.status import command
from ngrpo.claims.evidence import ShownEffect
from ngrpo.claims.needs import TARGET
from ngrpo.claims.verdicts import ClaimResult, judge_claims
from ngrpo.errors import UserError, unknown_name
from ngrpo.formatting import effect, p_value
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.planned_claims import Decision, PlannedClaim
from ngrpo.planning.power import Planner
from ngrpo.planning.power_text import asked_effect, needed_seeds
from ngrpo.statistics.effects import POWER, QUESTIONS
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.naming import DECIDE
from ngrpo.study.predicate_text import estimator_text, limit_text, predicate_text
from ngrpo.study.predicates import FILE, PAPER, Claim, read_claims
from ngrpo.terminal import printable, text_table

MOST_MISSING = 3
"""Lines of missing evidence that are shown."""
LABEL = 12


def claims_text(study: Study, results: Results) -> str:
    """Every claim that the study's scale shows, with its verdict."""
    claims = judge_claims(study, results)
    if not claims:
        return "This configuration has no claims."
    head = ["claim", "verdict", "where", "says"]
    rows = [[c.id, c.verdict or "no verdict", c.where, c.says] for c in claims]
    counts = Counter(c.verdict or f"without a verdict at scale {study.scale}" for c in claims)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    return (
        f"{text_table(head, rows, (60, 13, 26, 100))}\n\n{len(claims)} claims: {counted}. One of them: ngrpo claim ID"
    )


def claim_text(name: str, study: Study, results: Results) -> str:
    """One claim. Raises UserError, with the nearest one, where there is none of this id."""
    claims = read_claims(study.folder) if study.folder else {}
    if name not in claims:
        raise unknown_name("claim", name, claims, where=FILE, listed_by="ngrpo claim")
    claim = claims[name]
    result = next((each for each in judge_claims(study, results) if each.id == name), None)
    lines = [f"{name}: {claim.says}", "", *_asked(claim)]
    if result is None:
        do = f"ngrpo claim {name} --scale {claim.scale}"
        return "\n".join([*lines, _line("verdict", f"none here: it is a claim of scale {claim.scale} ({do})")])
    return "\n".join([*lines, "", *_verdict(result), "", *_next(result, claim, study, results)])


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{printable(text)}"


def _asked(claim: Claim) -> Iterator[str]:
    """What it says where, and how it is judged."""
    test = claim.test
    words = f": “{claim.words}”" if claim.words else ""
    yield _line("where", f"{claim.where}{words}" if claim.scale == PAPER else f"{claim.where} (not of the paper)")
    yield _line("family", f"{claim.family}: its claims are judged together (Holm)")
    yield _line("asks", f"{claim.question}")
    yield _line("model", test.model)
    yield _line("test", predicate_text(test))
    if estimator := estimator_text(test):
        yield _line("estimator", f"{estimator} of Pass@k; the other one is shown beside it")
    if limit := limit_text(test):
        yield _line("limit", limit)


def _verdict(result: ClaimResult) -> Iterator[str]:
    """What is known now."""
    yield _line("verdict", f"{result.verdict or 'none'}. {result.reason}")
    for answer in result.questions:
        looks = f"{answer.looks} look{'s' * (answer.looks != 1)}"
        p = f"p {p_value(answer.p)}, adjusted {p_value(answer.adjusted)} ({answer.family} claims, {looks})"
        yield _line("", f"{answer.question}: {answer.verdict}, {p}")
    for part in result.parts:
        yield _line("effect", part.what)
        yield _line("", _measured(part))
    for label, note in zip(("missing", *[""] * MOST_MISSING), result.missing[:MOST_MISSING], strict=False):
        yield _line(label, note.partition("; made by:")[0])  # `evidence` makes all of it
    if (more := len(result.missing) - MOST_MISSING) > 0:
        yield _line("", f"… and {more} more")
    if result.same_as:
        yield _line("see", f"ngrpo claim {result.same_as}")


def _measured(part: ShownEffect) -> str:
    here = f"{QUESTIONS[0]} {effect(part.low, part.unit)} to {effect(part.high, part.unit)}"
    beyond = part.beyond
    there = ""
    if beyond is not None:
        there = f"; {QUESTIONS[1]} {effect(beyond.low, part.unit)} to {effect(beyond.high, part.unit)}"
    size = f"{part.problems} problems × {part.n}" if part.n else f"{part.problems} tokens" if part.problems else ""
    made_of = ", ".join(filter(None, (f"{part.seeds} seed{'s' * (part.seeds != 1)}", size)))
    text = f"{effect(part.estimate, part.unit)} (95 %: {here}{there}; {made_of})"
    return f"{text}; {part.note}" if part.note else text


def _next(result: ClaimResult, claim: Claim, study: Study, results: Results) -> Iterator[str]:
    """What makes its evidence, and what deciding it takes."""
    yield _line("evidence", command(study, results, f"{TARGET}{result.id}"))
    if result.verdict is None:
        return
    yield _line("decide", f"{command(study, results, f'{DECIDE}{result.id}')} (adds training seeds)")
    planner = Planner(study, Costs(study, results))
    try:
        planned = planner.plan(result.id, claim)
    except UserError as error:
        yield _line("power", f"not computed: {error.what}")
        return
    decisions = [planned.decision(question) for question in QUESTIONS]
    for label, decision in zip(("power", ""), decisions, strict=True):
        yield _line(label, _power(planned, decision, planner.costs))


def _power(planned: PlannedClaim, decision: Decision, costs: Costs) -> str:
    size, question = f"{asked_effect(planned)} points", decision.question
    if decision.seeds is None or decision.hours is None:
        few = "" if decision.hopeful is None else f" for sure, {decision.hopeful} may"
        return f"{question}: no number of training seeds shows {size} with {100 * POWER:.0f} % power{few}"
    needed = f"{needed_seeds(planned, decision)} seeds" if planned.runs else "no further seed"
    device, file = costs.declared.device, costs.file
    money = f", {_span(decision.hours * file.gpu_hour)} {file.currency}" if device == "GPU" else ""
    needs = f"{needed} for {100 * POWER:.0f} % power at {size}"
    return f"{question}: {needs}: {_span(decision.hours)} {device}-hours{money}; {planned.seeds} configured"


def _span(span: Span) -> str:
    return " – ".join(dict.fromkeys(f"{value:,.0f}" for value in (span.low, span.high)))
