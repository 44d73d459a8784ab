"""What work costs: declared in config/costs.yaml, replaced by what finished runs and evaluations have measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.study.cards import DataCard
from ngrpo.study.declared_costs import COSTS_FILE, CostsFile, CpuStage, ModelCosts
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.reading import read_yaml
from ngrpo.study.run_log import planned_steps
from ngrpo.study.specs import EvaluationSpec, RunSpec
from ngrpo.study.spent import evaluation_spent, run_spent

ENOUGH = 3  # logged steps that make a measured step time
UNKNOWN_PROBLEMS = 100  # of a data set that declares no number, until it is there to be counted


@dataclass(frozen=True)
class Span:
    """A low and a high estimate, in hours; measured: both are what was measured."""

    low: float = 0.0
    high: float = 0.0
    measured: bool = False

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.high + other.high, self.measured and other.measured)

    def __mul__(self, factor: float) -> "Span":
        return Span(self.low * factor, self.high * factor, self.measured)


def total(spans: Iterable[Span]) -> Span:
    """The sum of spans; measured where all of them are."""
    parts = list(spans)
    return Span(sum(s.low for s in parts), sum(s.high for s in parts), bool(parts) and all(s.measured for s in parts))


class Costs:
    """Estimates for a study at its scale, from the declared costs and whatever its results have measured."""

    def __init__(self, study: Study, results: Results):
        """Raises UserError where the study's configuration folder declares no costs of its scale."""
        where = (study.folder or Path()) / COSTS_FILE
        self.file = read_yaml(CostsFile, where)
        if study.scale not in self.file.scales:
            raise unknown_name("scale", study.scale, self.file.scales, where=where)
        self.declared, self.where = self.file.scales[study.scale], f"{where}: scales.{study.scale}"
        self.results = results
        self.steps: dict[str, list[float]] = {}
        """Of each run of a base model that has logged enough: its mean seconds a step."""
        for run_id, run in study.runs.items():
            training = run_spent(results.run(run_id))
            if training and len(training[0]) >= ENOUGH:
                self.steps.setdefault(run.model.id, []).append(sum(training[0]) / len(training[0]))
        self.sampled: dict[str, list[tuple[float, float]]] = {}
        """Of each evaluation of a base model or its policies: tokens a response, device-hours a token."""
        for name, spec in study.evaluations.items():
            sampling = evaluation_spent(results.evaluation(name))
            if sampling:
                tokens = sampling[0] * spec.samples * self.problems(spec)
                rate = sampling[1].device_hours / max(1.0, tokens)
                self.sampled.setdefault(_base(spec), []).append((sampling[0], rate))

    def model(self, model: str) -> ModelCosts:
        """A base model's declared costs. Raises UserError where there are none."""
        if model not in self.declared.models:
            raise UserError(
                f"no costs are declared for the model '{model}'", where=f"{self.where}.models", do=f"add {model}: …"
            )
        return self.declared.models[model]

    def total_steps(self, spec: RunSpec) -> int:
        """Optimization steps of a run; from the data where they are, else from the declared number of problems."""
        card = self.results.training_data(spec.data.dataset.id, spec.model.id).card
        rows = read_json(card, DataCard)["rows_out"] if card.exists() else None
        return planned_steps(spec.training, rows or self.declared.training_problems)

    def problems(self, spec: EvaluationSpec) -> int:
        """Problems of an evaluation: as in its data, else as its data set declares."""
        card, dataset = self.results.dataset(spec.benchmark.id).card, spec.benchmark.dataset
        made: int = getattr(dataset.source, "count", UNKNOWN_PROBLEMS)
        declared = dataset.rows or made
        rows: int = read_json(card, DataCard)["rows_out"] if card.exists() else declared
        return min(rows, dataset.limit or rows)

    def train(self, spec: RunSpec, steps: int, *, declared: bool = False) -> Span:
        """Wall hours of so many steps."""
        measured = [] if declared else self.steps.get(spec.model.id, [])
        low, high = (min(measured), max(measured)) if measured else self.model(spec.model.id).step_seconds
        return Span(steps * low / 3600, steps * high / 3600, bool(measured))

    def sample(self, spec: EvaluationSpec, *, declared: bool = False) -> Span:
        """Wall hours of an evaluation's samples on one device."""
        costs, answers = self.model(_base(spec)), spec.samples * self.problems(spec)
        measured = [] if declared else self.sampled.get(_base(spec), [])
        if measured:
            tokens, rates = zip(*measured, strict=True)
            return Span(answers * min(tokens) * min(rates), answers * max(tokens) * max(rates), True)
        (fewest, most), (slow, fast) = costs.response_tokens, costs.tokens_per_second
        return Span(answers * fewest / fast / 3600, answers * most / slow / 3600)

    def cheap(self, stage: str) -> Span:
        """Wall hours of a job without devices."""
        low, high = self.declared.minutes.get(cast(CpuStage, stage), (0.0, 0.0))
        return Span(low / 60, high / 60)


def _base(spec: EvaluationSpec) -> str:
    return spec.policy.model.id if isinstance(spec.policy, RunSpec) else spec.policy.id
