"""What can be decided at what price: for every claim that compares evaluations and both questions, the smallest effect
that the scale's seeds show, the seeds for 80 % power at the paper's effect, and what they cost.

Declared, until runs have been measured: noise between runs (config/costs.yaml) and pass rates (the paper's own row of
the model, config/paper_values.yaml). What they predict: ngrpo.statistics.prediction, docs/statistics.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from ngrpo.claims.at_scale import at_scale, judged_here
from ngrpo.claims.needs import least_seeds
from ngrpo.errors import UserError, unknown_name
from ngrpo.planning.costs import Costs, Span
from ngrpo.statistics.effects import QUESTIONS
from ngrpo.statistics.estimators import estimator_values
from ngrpo.statistics.prediction import (
    DrawnProblems,
    Planned,
    draw_problems,
    power_curve,
    seeds_needed,
    smallest_effect,
)
from ngrpo.statistics.simulation import LogitNoise, Shape, fitted
from ngrpo.study.declared_costs import COSTS_FILE
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.predicates import FILE, Claim, Higher, Similar, System, read_claims

FITTED = (16, 32)
"""The k whose printed Pass@k a shape is fitted to, with Mean@n."""


@dataclass(frozen=True)
class Hours:
    """Device-hours of a claim: what every seed costs, and what is paid once."""

    seed: Span
    once: Span
    wall: Span
    """From start to end with as many nodes as jobs: one training and its longest evaluation."""

    def of(self, seeds: int) -> Span:
        """Of so many seeds."""
        return self.seed * seeds + self.once


@dataclass(frozen=True)
class Decision:
    """What deciding a claim takes, for one of QUESTIONS. Sizes are shares."""

    question: str
    detectable: float
    """With the seeds that the study gives it; infinite with one."""
    seeds: int | None
    """For 80 % power; None: no number of seeds has it."""
    hours: Span | None


@dataclass(frozen=True)
class PlannedClaim:
    """A claim whose power can be told."""

    name: str
    claim: Claim
    size: float
    """The smallest difference that it needs (a margin, where it says "similar"), a share."""
    similar: bool
    comparisons: tuple[tuple[Planned, float], ...]
    """Those that differ, each with the smallest size that is asked of it."""
    runs: frozenset[str]
    """Methods × model that it trains, by the ids of their first seed's runs."""
    hours: Hours
    seeds: int
    """Training seeds that the study gives it: of the comparison that has the fewest; 1 where nothing is trained."""

    def power(self, seeds: int, question: str) -> float:
        """Of the hardest comparison, which the claim's can't exceed."""
        return min(power_curve(p, seeds, question, self.similar)(size) for p, size in self.comparisons)

    def decision(self, question: str) -> Decision:
        """What it takes."""
        least = max(smallest_effect(p, self.seeds, question, self.similar) for p, _ in self.comparisons)
        needed = [seeds_needed(p, size, question, self.similar) for p, size in self.comparisons]
        most = None if None in needed else max(n for n in needed if n is not None)
        return Decision(question, least, most, None if most is None else self.hours.of(most))


@dataclass
class Planner:
    """Power and prices of a study's claims."""

    study: Study
    costs: Costs
    shapes: dict[tuple[str, str], Shape] = field(default_factory=dict)
    plans: dict[tuple[object, ...], Planned] = field(default_factory=dict)

    @cached_property
    def noise(self) -> LogitNoise:
        """As declared. Raises UserError where it isn't."""
        declared = self.costs.file.noise
        if declared is None:
            raise UserError("no noise between runs is declared", where=COSTS_FILE, do="add a section `noise`")
        return LogitNoise(declared.run, declared.method_problem, declared.run_problem)

    @cached_property
    def paper(self) -> PaperValues:
        """What the paper reports. Raises UserError where the configuration has nothing of it."""
        paper = read_paper_values(self.study.folder) if self.study.folder else None
        if paper is None:
            raise UserError("pass rates come from the paper's values", where="paper_values.yaml", do="add the file")
        return paper

    def claims(self, only: str | None = None) -> Iterator[PlannedClaim | tuple[str, str]]:
        """Every claim that is judged at this scale, or (its id, why its power can't be told).

        Raises UserError, with the nearest one, for a claim that doesn't exist.
        """
        claims = read_claims(self.study.folder) if self.study.folder else {}
        if only is not None and only not in claims:
            raise unknown_name("claim", only, claims, where=FILE, listed_by="ngrpo claim")
        for name, claim in claims.items():
            if only is not None and name != only:
                continue
            if not judged_here(claim, self.study):
                if only:
                    yield name, f"scale {self.study.scale} gives no verdict on it"
                continue
            try:
                yield self.plan(name, claim)
            except UserError as error:
                yield name, error.what

    def plan(self, name: str, claim: Claim) -> PlannedClaim:
        """A claim's comparisons and hours. Raises UserError, saying why, where its power can't be told."""
        test = at_scale(claim, self.study)
        if not isinstance(test, Higher | Similar):
            raise UserError(f"kind {test.kind}: decided by counts or logs, not planned")
        sizes: dict[Planned, float] = {}
        systems: list[System] = [test.system]
        benchmarks: list[str] = []
        for other, on, points in test.comparisons():
            planned = self.planned(test, other, on)
            sizes[planned] = min(points / 100, sizes.get(planned, 1.0))
            systems.append(other)
            benchmarks += on
        runs = {self.study.run_id(s.method, test.model) or s.method for s in systems if s.method}
        hours = self.hours(list(dict.fromkeys(systems)), test.model, list(dict.fromkeys(benchmarks)))
        return PlannedClaim(
            name=name,
            claim=claim,
            size=min(sizes.values()),
            similar=isinstance(test, Similar),
            comparisons=tuple(sizes.items()),
            runs=frozenset(runs),
            hours=hours,
            seeds=least_seeds(test, self.study),
        )

    def planned(self, test: Higher | Similar, other: System, benchmarks: Sequence[str]) -> Planned:
        """One comparison's problems and which of its systems are trained; the same object for the same ones."""
        samples = self.study.size.evaluation.samples
        trained = (test.system.method is not None, other.method is not None)
        key = (test.model, test.metric, test.estimator, tuple(benchmarks), trained)
        if key not in self.plans:
            g = tuple(float(v) for v in estimator_values(test.metric, test.estimator, samples))
            drawn: list[DrawnProblems] = []
            for benchmark in benchmarks:
                size = self.paper.sizes.get(benchmark) or self.study.datasets[benchmark].dataset.rows
                if not size:
                    raise UserError(f"how many problems {benchmark} has isn't declared")
                drawn.append(draw_problems(self.shape(test.model, benchmark), size, g, self.noise))
            self.plans[key] = Planned(tuple(drawn), trained)
        return self.plans[key]

    def shape(self, model: str, benchmark: str) -> Shape:
        """Pass rates of a model on a benchmark, fitted to a row that the paper prints: GRPO's, where there is one."""
        if (model, benchmark) not in self.shapes:
            rows = [
                (label != "GRPO", values[benchmark])
                for table in self.paper.tables.values()
                for label, values in table.values.get(model, {}).items()
                if {"mean", *(f"pass@{k}" for k in FITTED)} <= set(values.get(benchmark, {}))
            ]
            if not rows:
                raise UserError(f"the paper prints no pass rates of {model} on {benchmark}")
            row = {str(metric): value / 100 for metric, value in min(rows, key=_first)[1].items()}
            targets = tuple((k, row[f"pass@{k}"]) for k in FITTED)
            self.shapes[model, benchmark] = fitted(row["mean"], targets)
        return self.shapes[model, benchmark]

    def hours(self, systems: Sequence[System], model: str, benchmarks: Sequence[str]) -> Hours:
        """What the systems cost on these benchmarks."""
        seed, once, train, sample = Span(), Span(), Span(), Span()
        for method in dict.fromkeys(s.method for s in systems if s.method):
            run = self.study.run_id(method, model)
            if run is None:
                raise UserError(f"no table of scale {self.study.scale} trains {method} on {model}")
            spec = self.study.runs[run]
            took = self.costs.train(spec, self.costs.total_steps(spec))
            seed += took * self.costs.model(model).devices
            train = max(train, took, key=_high)
        for system, benchmark in product(systems, benchmarks):
            name = self.study.evaluation_id(system.method, system.decoding, model, benchmark)
            if name is None:
                raise UserError(
                    f"no table of scale {self.study.scale} measures {system.method or 'base'} on {benchmark}"
                )
            took = self.costs.sample(self.study.evaluations[name])
            seed, once = (seed + took, once) if system.method else (seed, once + took)
            sample = max(sample, took, key=_high)
        return Hours(seed, once, train + sample)


def _first(row: tuple[bool, object]) -> bool:
    return row[0]


def _high(span: Span) -> float:
    return span.high


@dataclass(frozen=True)
class Bought:
    """A claim that a budget buys: its seeds, what it adds to what was bought before, and all so far. Device-hours."""

    name: str
    seeds: int
    extra: float
    spent: float


def buy(claims: Sequence[PlannedClaim], budget: float) -> list[Bought]:
    """Which claims to decide first with so many device-hours (high estimates), on these benchmarks: always the one that
    adds least to what is bought, runs that two claims share being paid once."""
    wanted = {c.name: (c, c.decision(QUESTIONS[0]).seeds) for c in claims}
    left = {name: (claim, need) for name, (claim, need) in wanted.items() if need is not None}
    owned: dict[str, int] = {}
    bought: list[Bought] = []
    spent = 0.0

    def extra(name: str) -> float:
        claim, need = left[name]
        if not claim.runs:
            return claim.hours.once.high
        new = sum(max(0, need - owned.get(run, 0)) for run in claim.runs) / len(claim.runs)
        return claim.hours.seed.high * new + claim.hours.once.high

    while left:
        name = min(left, key=extra)
        if spent + extra(name) > budget:
            break
        added, (claim, need) = extra(name), left.pop(name)
        spent += added
        owned |= {run: max(need, owned.get(run, 0)) for run in claim.runs}
        bought.append(Bought(name, need, added, spent))
    return bought
