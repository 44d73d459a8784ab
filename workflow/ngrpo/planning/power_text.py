"""`ngrpo power` as text, and its curve as a figure."""

from collections.abc import Sequence
from html import escape

import numpy as np

from ngrpo.formatting import seeds_text
from ngrpo.planning.budget import Bought, buy
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.planned_claims import Compared, Decision, PlannedClaim
from ngrpo.planning.power import Planner
from ngrpo.statistics.effects import POWER, QUESTIONS
from ngrpo.statistics.prediction import MOST_SEEDS
from ngrpo.study.expand import Study
from ngrpo.terminal import text_table

CURVE = (2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40)
"""Training seeds at which a curve is computed."""
WIDTH, HEIGHT, LEFT, TOP = 560, 300, 48, 24
DASHES = {QUESTIONS[0]: "", QUESTIONS[1]: "6 4"}


def power_text(
    planner: Planner, *, only: str | None = None, rate: float | None = None, budget: float | None = None
) -> str:
    """Every claim (or one) with what deciding it takes. rate: of a device-hour; None: as config/costs.yaml says;
    budget: device-hours for which the claims to decide first are named."""
    claims = list(planner.claims(only))
    planned = [c for c in claims if isinstance(c, PlannedClaim)]
    untold = [c for c in claims if not isinstance(c, PlannedClaim)]
    device = planner.costs.declared.device
    price = planner.costs.file.gpu_hour if rate is None else rate
    head = ["claim", "effect", "has", "question", "shows", "needs", f"{device}-hours", planner.costs.file.currency]
    decisions = {c.name: [c.decision(q) for q in QUESTIONS] for c in planned}
    rows = [_row(c, d, price) for c in planned for d in decisions[c.name]]
    lines = [text_table(head, rows)] if rows else []
    if only:
        lines += [_curve(claim, price) for claim in planned]
    lines += [f"{name}: {why}" for name, why in untold]
    if budget is not None:
        lines += ["", *_bought(buy(planned, budget), budget, device)]
    return "\n".join([*lines, "", *_notes(planner)])


def decidable(planner: Planner) -> str:
    """How many claims about trained policies the study's seeds decide with 80 % power on these benchmarks, and which
    takes least, at what price. Empty at scales that give no verdicts, and where no noise is declared."""
    study = planner.study
    if not study.size.verdicts or planner.costs.file.noise is None:
        return ""
    claims = [c for c in planner.claims() if isinstance(c, PlannedClaim) and c.runs]
    if not claims:
        return ""
    enough = [c for c in claims if c.seeds > 1 and c.power(c.seeds, QUESTIONS[0]) >= POWER]
    seeds = seeds_text({len(each) for each in study.seeds_of_runs.values()})
    said = f"{len(enough) or 'none'} of {len(claims)} claims about trained policies, with {seeds}"
    priced = [(c, d) for c in enough or claims if (d := c.decision(QUESTIONS[0])).seeds and d.hours]
    if not priced:
        return f"{said}; no number of seeds decides one"
    claim, decision = min(priced, key=_price_of)
    assert decision.hours is not None, "only such were kept"
    hours = f"{_span(decision.hours)} {planner.costs.declared.device}-hours"
    noise = "declared" if claim.claim.test.model in _unmeasured(planner) else "measured"
    return f"{said}; {claim.name} takes least: {decision.seeds} seeds, {hours}, by {noise} noise between runs"


def _price_of(priced: tuple[PlannedClaim, Decision]) -> float:
    return priced[1].hours.high if priced[1].hours else np.inf


def decidable_line(study: Study, costs: Costs) -> str:
    """The same as one line for a plan; empty as `decidable`."""
    said = decidable(Planner(study, costs))
    return f"decides     {said} (ngrpo power)" if said else ""


def _points(share: float) -> str:
    return "–" if np.isinf(share) else f"{100 * share:.2f}"


def _span(span: Span, factor: float = 1.0) -> str:
    low, high = span.low * factor, span.high * factor
    return f"{low:,.0f}" if f"{low:,.0f}" == f"{high:,.0f}" else f"{low:,.0f} – {high:,.0f}"


def asked_effect(claim: PlannedClaim) -> str:
    """The smallest effect that is asked of it, or its margin, or what may be lost where nothing is."""
    first = claim.first
    sign = ("±" if first.similar else "+") if isinstance(first, Compared) else "≤"
    return f"{sign}{_points(first.size)}"


def _row(claim: PlannedClaim, decision: Decision, price: float) -> list[object]:
    first = decision.question == QUESTIONS[0]
    has = str(claim.seeds) if claim.runs else "–"
    named: list[object] = [*((claim.name, asked_effect(claim), has) if first else ("", "", "")), decision.question]
    needs = needed_seeds(claim, decision)
    if decision.hours is None:
        never = "not decidable by any number of seeds" if decision.hopeful is None else "not sure to be decidable"
        return [*named, _points(decision.detectable), needs, never, ""]
    return [*named, _points(decision.detectable), needs, _span(decision.hours), _span(decision.hours, price)]


def needed_seeds(claim: PlannedClaim, decision: Decision) -> str:
    """Seeds, and how far they may lie from that."""
    ends = [_number(claim, each) for each in (decision.hopeful, decision.seeds, decision.cautious)]
    return ends[1] if ends[0] == ends[2] else f"{ends[1]} ({ends[0]} – {ends[2]})"


def _number(claim: PlannedClaim, seeds: int | None) -> str:
    return "never" if seeds is None else str(seeds) if claim.runs else "none"


def _curve(claim: PlannedClaim, price: float) -> str:
    head = ["seeds", *QUESTIONS, "device-hours", "money"]
    rows = [
        [s, *(_chance(claim, s, q) for q in QUESTIONS), _span(claim.hours.of(s)),
         _span(claim.hours.of(s), price)]
        for s in CURVE
    ]  # fmt: skip
    wall = claim.hours.wall
    table = text_table(head, rows)
    return f"\npower at {asked_effect(claim)} points\n{table}\nwall time {_span(wall)} hours on as many nodes as jobs"


def _chance(claim: PlannedClaim, seeds: int, question: str) -> str:
    least, most = claim.between(seeds, question)
    return f"{100 * claim.power(seeds, question):.0f} % ({100 * least:.0f} – {100 * most:.0f})"


def _bought(bought: Sequence[Bought], budget: float, device: str) -> list[str]:
    if not bought:
        return [f"{budget:,.0f} {device}-hours decide no claim."]
    rows = [[b.name, b.seeds, f"{b.extra:,.0f}", f"{b.spent:,.0f}"] for b in bought]
    return [
        f"for {budget:,.0f} {device}-hours (high estimates), on these benchmarks, in this order",
        text_table(["claim", "seeds", f"more {device}-hours", "in all"], rows),
    ]


def _notes(planner: Planner) -> list[str]:
    lines = [
        "has: the training seeds that this study gives the claim. shows: the smallest difference in points that they"
        f" show with {100 * POWER:.0f} % power, each comparison alone. needs: training seeds for that power at the"
        " effect (the paper's; a margin or lead; for ≤, if no problem is lost), and in brackets from the fewest that"
        " may do to those that do for sure: printed scores fit more than one shape of difficulty, and how comparisons"
        f" of one claim hang together isn't known. never: not with {MOST_SEEDS}, for the problems, or for the one"
        " evaluation of a base model, whose samples no seed adds to. Each claim alone; a family needs more.",
    ]
    lines += [said.words for said in planner.measured.values()]
    noise, names = planner.costs.file.noise, _unmeasured(planner)
    if noise is not None and names:
        of = "all models" if len(names) == len(planner.study.models) else ", ".join(names)
        lines.append(
            f"noise (log-odds) of {of}: run {noise.run:g}, method × problem {noise.method_problem:g},"
            f" run × problem {noise.run_problem:g}: {noise.source}"
        )
    return [*lines, "Pass rates: fitted to the paper's rows. Model: docs/statistics.md"]


def _unmeasured(planner: Planner) -> list[str]:
    """The base models whose noise is declared."""
    return [m for m in planner.study.models if m not in planner.measured or planner.measured[m].noise is None]


def power_figure(claim: PlannedClaim) -> str:
    """Power over training seeds for both questions, as a whole SVG."""

    def at(seeds: float, power: float) -> str:
        x = LEFT + (seeds - CURVE[0]) / (CURVE[-1] - CURVE[0]) * (WIDTH - LEFT - 16)
        return f"{x:.1f},{TOP + (1 - power) * (HEIGHT - TOP - 44):.1f}"

    title = f"Power of {claim.name} at {asked_effect(claim)} points"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif"'
        f' font-size="12"><title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="16">{escape(title)}</text>',
    ]
    for level in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        start, end = at(CURVE[0], level), at(CURVE[-1], level)
        y = start.split(",")[1]
        stroke = "#555" if level == POWER else "#ddd"
        parts.append(f'<polyline points="{start} {end}" stroke="{stroke}" fill="none"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{100 * level:.0f} %</text>'
        )
    for seeds in (2, 5, 10, 20, 30, 40):
        x, y = at(seeds, 0.0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{seeds}</text>')
    parts.append(f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">training seeds</text>')
    for question, color in zip(QUESTIONS, ("#1f5a99", "#b3541e"), strict=True):
        between = [claim.between(seeds, question) for seeds in CURVE]
        rim = [at(s, most) for s, (_, most) in zip(CURVE, between, strict=True)]
        rim += [at(s, least) for s, (least, _) in reversed(list(zip(CURVE, between, strict=True)))]
        parts.append(f'<polygon points="{" ".join(rim)}" fill="{color}" fill-opacity="0.12"/>')
        powers = [claim.power(seeds, question) for seeds in CURVE]
        line = " ".join(at(s, p) for s, p in zip(CURVE, powers, strict=True))
        dash = f' stroke-dasharray="{DASHES[question]}"' if DASHES[question] else ""
        parts.append(f'<polyline points="{line}" stroke="{color}" stroke-width="2" fill="none"{dash}/>')
        x, y = at(CURVE[-1], powers[-1]).split(",")
        parts.append(f'<text x="{x}" y="{float(y) - 6:.1f}" text-anchor="end" fill="{color}">{escape(question)}</text>')
    return "".join([*parts, "</svg>\n"])
