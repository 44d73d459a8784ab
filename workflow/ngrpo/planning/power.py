"""What can be decided at what price: for every claim that compares evaluations and both questions, the smallest effect
that the scale's seeds show, the seeds for 80 % power at the paper's effect, and what they cost.

Noise between runs is measured where enough runs are finished (ngrpo.planning.measured), else declared
(config/costs.yaml); pass rates are those of the paper's own row of the model (config/paper_values.yaml). What they
predict: ngrpo.statistics.prediction; what a claim of several comparisons takes: ngrpo.planning.planned_claims.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from ngrpo.audit.paper_noise import as_noise, of_row
from ngrpo.claims.at_scale import at_scale, judged_here
from ngrpo.claims.needs import least_seeds
from ngrpo.errors import UserError, unknown_name
from ngrpo.planning.costs import Costs, Span
from ngrpo.planning.measured import Found, measured_noise
from ngrpo.planning.planned_claims import Compared, Hours, NoneLost, PlannedClaim, Shown
from ngrpo.statistics.estimators import estimator_values
from ngrpo.statistics.fitting import Scores, extremes, fitted
from ngrpo.statistics.pass_rates import LogitNoise
from ngrpo.statistics.prediction import Planned, draw_problems
from ngrpo.study.declared_costs import COSTS_FILE
from ngrpo.study.expand import Study
from ngrpo.study.paper_values import PaperValues, read_paper_values
from ngrpo.study.predicates import FILE, Claim, Higher, LosesNone, Most, Similar, System, read_claims, said_of

UNTOLD = {
    "logged": "how much a logged value varies from run to run is declared nowhere, and the paper has one run",
    "slowdown": "how much speed varies from run to run is declared nowhere, and the paper has one run",
    "diagnosed": "a share of one base model's tokens, which no seed adds to; how much tokens differ isn't declared",
}
"""Why the power of a claim of some kinds isn't computed."""


@dataclass
class Planner:
    """Power and prices of a study's claims."""

    study: Study
    costs: Costs
    plans: dict[tuple[object, ...], tuple[Planned, ...]] = field(default_factory=dict)

    @cached_property
    def measured(self) -> dict[str, Found]:
        """What finished runs of this scale say of the noise between runs, by base model."""
        return measured_noise(self.study, self.costs.results)

    def noise(self, model: str) -> LogitNoise:
        """Of a base model's runs: measured where enough are finished, else declared. Raises UserError where it is
        neither."""
        said = self.measured.get(model)
        if said is not None and said.noise is not None:
            return said.noise.noise
        declared = self.costs.file.noise
        if declared is None:
            raise UserError("no noise between runs is declared", where=COSTS_FILE, do="add a section `noise`")
        return as_noise(declared)

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
                yield name, f"not computed: {error.what}"

    def plan(self, name: str, claim: Claim) -> PlannedClaim:
        """A claim's comparisons and hours. Raises UserError, saying why, where its power can't be told."""
        test = at_scale(claim, self.study)
        if not isinstance(test, Higher | Similar | Most | LosesNone):
            raise UserError(f"{UNTOLD.get(test.kind, f'claims of kind {test.kind} are not planned')}")
        cells, at_least = self.cells(test)
        systems = [test.system, *test.others]
        runs = {self.study.run_id(s.method, test.model) or s.method for s in systems if s.method}
        return PlannedClaim(
            name=name,
            claim=claim,
            cells=cells,
            at_least=at_least,
            runs=frozenset(runs),
            hours=self.hours(list(dict.fromkeys(systems)), test.model, list(dict.fromkeys(test.benchmarks))),
            seeds=least_seeds(test, self.study),
        )

    def cells(self, test: Higher | Similar | Most | LosesNone) -> tuple[tuple[tuple[Shown, ...], ...], int]:
        """What must be shown, cell by cell (all of a cell), and in how many cells."""
        if isinstance(test, LosesNone):
            trained = any(s.method for s in (test.system, test.than))
            lost = [NoneLost(self.size(b), trained, test.at_most / 100) for b in test.benchmarks]
            return (tuple(lost),), 1
        if isinstance(test, Most):
            lead = test.lead / 100
            of_cells = [
                tuple(Compared(self.planned(test, other, (b,), metric), lead) for other in test.than)
                for b, metric in test.cells
            ]
            return tuple(of_cells), test.at_least
        similar = isinstance(test, Similar)
        compared = [
            Compared(self.planned(test, other, on, test.metric), points / 100, similar)
            for other, on, points in test.comparisons()
        ]
        return (tuple(compared),), 1

    def planned(
        self, test: Higher | Similar | Most, other: System, benchmarks: Sequence[str], metric: str
    ) -> tuple[Planned, ...]:
        """One comparison's problems under the fitted shape of difficulty and under both extremes, and which of its
        systems are trained; the same object for the same ones."""
        trained = (test.system.method is not None, other.method is not None)
        key = (test.model, metric, test.estimator, tuple(benchmarks), trained)
        if key not in self.plans:
            g = tuple(float(v) for v in estimator_values(metric, test.estimator, self.study.size.evaluation.samples))
            rows = [self.scores(test.model, benchmark) for benchmark in benchmarks]
            noise = self.noise(test.model)
            shapes = [(fitted(row, noise), *extremes(row, g, noise)) for row in rows]
            self.plans[key] = tuple(
                Planned(
                    tuple(draw_problems(s, row.problems, g, noise) for s, row in zip(each, rows, strict=True)),
                    trained,
                )
                for each in zip(*shapes, strict=True)
            )
        return self.plans[key]

    def size(self, benchmark: str) -> int:
        """Problems of a benchmark. Raises UserError where nothing says how many."""
        size = self.paper.sizes.get(benchmark) or self.study.datasets[benchmark].dataset.rows
        if not size:
            raise UserError(f"how many problems {benchmark} has isn't declared")
        return size

    def scores(self, model: str, benchmark: str) -> Scores:
        """A row that the paper prints of a model on a benchmark: GRPO's, where there is one."""
        rows = [
            (label != "GRPO", values)
            for table in self.paper.tables.values()
            for label, values in table.values.get(model, {}).items()
            if {"mean", "pass@16", "pass@32"} <= set(values.get(benchmark, {}))
        ]
        if not rows:
            raise UserError(f"the paper prints no pass rates of {model} on {benchmark}")
        values = {name: {str(m): v for m, v in row.items()} for name, row in min(rows, key=_first)[1].items()}
        return of_row(values, {benchmark: self.size(benchmark)}, (benchmark,), self.paper.evaluation.samples)[0]

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
            name = self.study.evaluation_of(system, model, benchmark)
            if name is None:
                raise UserError(f"no table of scale {self.study.scale} measures {said_of(system)} on {benchmark}")
            took = self.costs.sample(self.study.evaluations[name])
            seed, once = (seed + took, once) if system.method else (seed, once + took)
            sample = max(sample, took, key=_high)
        return Hours(seed, once, train + sample)


def _first(row: tuple[bool, object]) -> bool:
    return row[0]


def _high(span: Span) -> float:
    return span.high
