"""What work costs: declared in config/costs.yaml, replaced by what finished runs and evaluations have measured.

Where neither is there (a scale or model of the user's own), hours are left out, and it is said what to declare.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ngrpo.files import read_json
from ngrpo.study.cards import DataCard
from ngrpo.study.declared_costs import COSTS_FILE, CostsFile, CpuStage, ModelCosts, ScaleCosts
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.reading import read_yaml
from ngrpo.study.run_log import planned_steps
from ngrpo.study.specs import EvaluationSpec, RunSpec
from ngrpo.study.spent import evaluation_spent, run_spent

ENOUGH = 3  # logged steps that make a measured step time
UNKNOWN_PROBLEMS = 100  # of a data set that declares no number, until it is there to be counted
NO_FILE = CostsFile.model_construct(currency="", gpu_hour=0.0, scales={})
NO_SCALE = ScaleCosts.model_construct(device=cast(Any, "device"), training_problems=0, models={}, minutes={})
NO_MODEL = ModelCosts.model_construct(
    devices=1, step_seconds=(0.0, 0.0), response_tokens=(0.0, 0.0), tokens_per_second=(1.0, 1.0)
)


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
        """Raises UserError where the study's declared costs can't be read."""
        where = (study.folder or Path()) / COSTS_FILE
        self.file = read_yaml(CostsFile, where) if where.exists() else NO_FILE
        self.declared = self.file.scales.get(study.scale, NO_SCALE)
        self.results = results
        self.undeclared = _undeclared(study, self.declared, where)
        """What costs to declare, a line each."""
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
        """A base model's declared costs; nothing where none are."""
        return self.declared.models.get(model, NO_MODEL)

    def total_steps(self, spec: RunSpec) -> int:
        """Optimization steps of a run; from the data where they are, else from the declared number of problems, 0 where
        neither is known."""
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


def _undeclared(study: Study, declared: ScaleCosts, where: Path) -> list[str]:
    left_out = "hours that nothing has measured are left out"
    if declared is NO_SCALE:
        block = f"add scales.{study.scale} to {where}, as another scale's block there has it"
        return [f"No costs are declared for the scale '{study.scale}': {left_out}; {block}"]
    missing = [name for name in study.models if name not in declared.models]
    place = f"{where}: scales.{study.scale}.models"
    return [f"No costs are declared for the model '{name}': {left_out}; add {name} to {place}" for name in missing]


def _base(spec: EvaluationSpec) -> str:
    return spec.base.id if spec.base else ""
