"""Training seeds until a claim is decided: what `snakemake decide-CLAIM` looks at, when it stops, and what it says.

Looks are at 3, 5, 8, 12, 18 … seeds, each half as many again, the last at the greatest number that is allowed; the
seeds between two looks are trained side by side. Every look spends some of the 5 % (ngrpo.statistics.multiplicity) and
is recorded, so that stopping early makes no false "supported" more likely. It is over where the claim has a verdict
other than "underpowered", the seeds are spent, or `ngrpo power` says that no number of them decides.
"""

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from ngrpo.claims.at_scale import at_scale, judged_here
from ngrpo.claims.looks import one_at_a_time, record_looks
from ngrpo.claims.needs import least_seeds
from ngrpo.claims.verdicts import ClaimResult, look_at_claims
from ngrpo.errors import UserError, unknown_name
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.power import Planner
from ngrpo.statistics.decisions import LEAST_SEEDS
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.predicates import FILE, Claim, Compared, read_claims, systems_of

FIRST = 3
"""Seeds of the first look: two tell hardly anything."""
STEP = 1.5
UNDECIDED = ("underpowered", "not run", None)


@dataclass(frozen=True)
class Outcome:
    """What is known of a claim after a look."""

    claim: str
    seeds: int
    """Training seeds that were compared; 0 where nothing could be."""
    verdict: str | None
    decided: bool
    over: bool
    """Whether more seeds are of no use, however many are allowed."""
    line: str
    """All this in words."""

    def json_value(self) -> dict[str, Any]:
        """As it is written down."""
        return asdict(self)


def looks_at(least: int, most: int) -> list[int]:
    """The numbers of seeds to look at. least: those that are asked for or there already; most: those allowed."""
    numbers = [min(FIRST, most)]
    while numbers[-1] < most:
        numbers.append(min(most, ceil(STEP * numbers[-1])))
    return [number for number in numbers if number >= least] or [max(least, most)]


def claim_to_decide(name: str, study: Study, most: int | None = None) -> tuple[Claim, int]:
    """A claim of the study, and the training seeds that it may get.

    Raises UserError for one that doesn't exist, gets no verdict at this scale, or may have one seed alone.
    """
    claims, where = read_claims(study.folder) if study.folder else {}, f"decide-{name}, at scale {study.scale}"
    if name not in claims:
        raise unknown_name("claim", name, claims, where=FILE, listed_by="ngrpo claim")
    claim, allowed = claims[name], most or study.size.max_seeds
    if not judged_here(claim, study):
        do = f"decide it where it gets one: --config scale={claim.scale}"
        raise UserError(f"claim '{name}' gets no verdict at this scale", where=where, do=do)
    if allowed < LEAST_SEEDS and any(system.method for system in systems_of(claim.test)):
        do = "set it to 2 or more"
        raise UserError(f"with max_seeds {allowed} nothing is decided about a trained policy", where=where, do=do)
    return claim, allowed


def planned_looks(name: str, study: Study, results: Results, most: int | None = None) -> list[int]:
    """The numbers of seeds at which a claim will be looked at; none where no number decides it, and the one that there
    is where nothing is trained. Raises UserError as `claim_to_decide`."""
    claim, allowed = claim_to_decide(name, study, most)
    if _hopeless(name, claim, Planner(study, Costs(study, results))):
        return []
    test = at_scale(claim, study)
    if not any(system.method for system in systems_of(test)):
        return [1]
    return looks_at(least_seeds(test, study), allowed)


def decide(name: str, study: Study, results: Results, most: int | None = None) -> Outcome:
    """Look at a claim on the seeds that are there, and record the look. Raises UserError as `claim_to_decide`."""
    claim, allowed = claim_to_decide(name, study, most)
    with one_at_a_time(results):
        judged, seen = look_at_claims(study, results)
        record_looks(results, {name: seen[name]} if name in seen else {})
    result = next(each for each in judged if each.id == name)
    planner = Planner(study, Costs(study, results))
    seeds = min((part.seeds for part in result.parts), default=0)
    decided = result.verdict not in UNDECIDED
    useless = "" if decided else _useless(result, claim, seeds, planner)
    then = f"max_seeds {allowed} is reached" if seeds >= allowed else ""
    then = useless or then or f"a look at {looks_at(seeds + 1, allowed)[0]} seeds is next"
    line, price = _line(result, seeds, decided, then), _price(name, claim, planner)
    return Outcome(
        name, seeds, result.verdict, decided, decided or bool(useless), f"{line}; {price}" if price else line
    )


def _useless(result: ClaimResult, claim: Claim, seeds: int, planner: Planner) -> str:
    """Why more seeds don't help an undecided claim; empty where they may."""
    if _hopeless(result.id, claim, planner):
        return f"no number of training seeds decides it (ngrpo power {result.id})"
    if result.verdict == "not run" and seeds == 0:
        return f"it can't be judged: {result.missing[0] if result.missing else result.reason}"
    trained = any(system.method for system in systems_of(claim.test))
    return "" if trained else "nothing in it is trained, so that seeds add nothing"


def _line(result: ClaimResult, seeds: int, decided: bool, then: str) -> str:
    own = next((q for q in result.questions if q.question.endswith(result.question)), None)
    said = f"{result.verdict} with {seeds} training seed{'s' * (seeds != 1)}"
    if own is not None:
        looks = f"{own.looks} look{'s' * (own.looks != 1)}"
        said += f" {own.question}, p {own.p:.2g}, adjusted {own.adjusted:.2g} ({own.family} claims, {looks})"
    return f"decided: {result.id} is {said}" if decided else f"not decided: {result.id} is {said}; {then}"


def _hopeless(name: str, claim: Claim, planner: Planner) -> bool:
    """Whether the power calculation says that no number of training seeds decides a claim; False where it can't say."""
    try:
        planned = planner.plan(name, claim)
        question = next(q for q in QUESTIONS if q.endswith(claim.question))
        return bool(planned.runs) and planned.decision(question).hopeful is None
    except UserError:
        return False


def _price(name: str, claim: Claim, planner: Planner) -> str:
    """What another training seed of a claim costs, in words; empty where nothing of it is trained or declared."""
    test = at_scale(claim, planner.study)
    if not isinstance(test, Compared) or not any(s.method for s in systems_of(test)):
        return ""
    span: Span = planner.hours(list(dict.fromkeys(systems_of(test))), test.model, list(test.benchmarks)).seed
    device, file = planner.costs.declared.device, planner.costs.file
    money = f", {span.low * file.gpu_hour:,.0f} – {span.high * file.gpu_hour:,.0f} {file.currency}"
    return f"another seed costs {_hours(span)} {device}-hours{money if device == 'GPU' else ''}"


def _hours(span: Span) -> str:
    return " – ".join(f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}" for hours in (span.low, span.high))
