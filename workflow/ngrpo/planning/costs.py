"""What work costs: declared in config/costs.yaml, replaced by what finished runs and evaluations have measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import read_json
from ngrpo.study.base import Config, Id
from ngrpo.study.reading import read_yaml
from ngrpo.study.specs import EvaluationSpec, RunSpec

FILE = "costs.yaml"
ENOUGH = 3  # logged steps that make a measured step time
CPU_STAGES = ("dataset", "model", "training_data", "neighbors", "diagnostics", "grade", "analyze", "notebook", "report")


class ModelCosts(Config):
    """What training and sampling a base model, or its policies, takes; pairs are low and high."""

    devices: int = Field(ge=1)
    """Of a training job; a sampling job takes one."""
    step_seconds: tuple[float, float]
    """Of one optimization step, everything included, on all devices."""
    response_tokens: tuple[float, float]
    """Of an evaluation's answer, its ending included."""
    tokens_per_second: tuple[float, float]
    """Drawn by one device, whatever the batch."""

    @model_validator(mode="after")
    def _ordered(self) -> "ModelCosts":
        for name in ("step_seconds", "response_tokens", "tokens_per_second"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: {low} to {high} is no range from low to high")
        return self


class ScaleCosts(Config):
    """One scale's costs."""

    device: Literal["GPU", "core"]
    """What is counted: GPU-hours or core-hours."""
    training_problems: int = Field(ge=1)
    """Rows that training data have, until they are there to be counted."""
    models: dict[Id, ModelCosts]
    """Costs by base model."""
    minutes: dict[Literal[CPU_STAGES], tuple[float, float]]
    """Of a job of each cheap stage."""

    @model_validator(mode="after")
    def _ordered(self) -> "ScaleCosts":
        for stage, (low, high) in self.minutes.items():
            if not 0 <= low <= high:
                raise ValueError(f"minutes.{stage}: {low} to {high} is no range from low to high")
        return self


class CostsFile(Config):
    """config/costs.yaml."""

    currency: str
    """Of `gpu_hour`."""
    gpu_hour: float = Field(ge=0)
    """Money of the currency that one GPU takes an hour."""
    scales: dict[Id, ScaleCosts]
    """Costs by scale."""


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


@dataclass(frozen=True)
class Spent:
    """What one job has taken so far."""

    hours: float
    devices: int
    on_gpus: bool

    @property
    def device_hours(self) -> float:
        """Hours of all its devices together."""
        return self.hours * self.devices


def run_spent(folder: Path) -> tuple[list[float], Spent] | None:
    """A run's logged seconds a step, and what they add up to; None where nothing is logged.

    Devices are those in verl.json, one where a run didn't write it. Start-up and steps that a kill made undone are not
    in it.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    seconds = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            seconds.append(float(json.loads(line)["seconds/step"]))
        except (json.JSONDecodeError, KeyError):  # a line that a kill cut off
            continue
    if not seconds:
        return None
    devices, gpu = 1, False
    if (folder / "verl.json").exists():
        told = read_json(folder / "verl.json").get("trainer", {})
        devices, gpu = told.get("n_gpus_per_node", 1) * told.get("nnodes", 1), told.get("device") == "cuda"
    return seconds, Spent(sum(seconds) / 3600, devices, gpu)


def evaluation_spent(samples: Path) -> tuple[float, Spent] | None:
    """An evaluation's tokens a response, and what sampling took; None where that wasn't written down."""
    card, clock = samples.with_suffix(".card.json"), samples.with_suffix(".time.json")
    if not card.exists() or not clock.exists():
        return None
    told, took = read_json(card), read_json(clock)
    return told["tokens"] / max(1, told["samples"]), Spent(took["seconds"] / 3600, took["devices"], took["gpu"])


class Costs:
    """Estimates for one scale, from the declared costs and whatever its results have measured."""

    def __init__(self, folder: Path, scale: str, results: Path, runs: dict, evaluations: dict):
        self.file = read_yaml(CostsFile, folder / FILE)
        if scale not in self.file.scales:
            raise unknown_name("scale", scale, self.file.scales, where=folder / FILE)
        self.declared, self.results, self.where = self.file.scales[scale], results, f"{folder / FILE}: scales.{scale}"
        self.steps: dict[str, list[float]] = {}
        for run, spec in runs.items():
            found = run_spent(results / "runs" / run)
            if found and len(found[0]) >= ENOUGH:
                self.steps.setdefault(spec.model.id, []).append(sum(found[0]) / len(found[0]))
        self.sampled: dict[str, list[tuple[float, float]]] = {}
        """Of each evaluation of a base model or its policies: tokens a response, device-hours a token."""
        for name, spec in evaluations.items():
            found = evaluation_spent(results / "evaluations" / f"{name}.samples.parquet")
            if found:
                tokens = found[0] * spec.samples * _problems(spec, results)
                rate = found[1].device_hours / max(1.0, tokens)
                self.sampled.setdefault(_base(spec), []).append((found[0], rate))

    def model(self, model: str) -> ModelCosts:
        """A base model's declared costs. Raises UserError where there are none."""
        if model not in self.declared.models:
            raise UserError(
                f"no costs are declared for the model '{model}'", where=f"{self.where}.models", do=f"add {model}: …"
            )
        return self.declared.models[model]

    def total_steps(self, spec: RunSpec) -> int:
        """Optimization steps of a run; from the data where they are, else from the declared number of problems."""
        if spec.training.steps is not None:
            return spec.training.steps
        data, rows = self.results / "data" / f"{spec.data.dataset.id}.{spec.model.id}.card.json", None
        if data.exists():
            rows = read_json(data)["rows_out"]
        return spec.training.epochs * ((rows or self.declared.training_problems) // spec.training.batch_prompts)

    def train(self, spec: RunSpec, steps: int, *, declared: bool = False) -> Span:
        """Wall hours of so many steps."""
        measured = [] if declared else self.steps.get(spec.model.id, [])
        low, high = (min(measured), max(measured)) if measured else self.model(spec.model.id).step_seconds
        return Span(steps * low / 3600, steps * high / 3600, bool(measured))

    def sample(self, spec: EvaluationSpec, *, declared: bool = False) -> Span:
        """Wall hours of an evaluation's samples on one device."""
        costs, answers = self.model(_base(spec)), spec.samples * _problems(spec, self.results)
        measured = [] if declared else self.sampled.get(_base(spec), [])
        if measured:
            tokens, rates = zip(*measured, strict=True)
            return Span(answers * min(tokens) * min(rates), answers * max(tokens) * max(rates), True)
        (fewest, most), (slow, fast) = costs.response_tokens, costs.tokens_per_second
        return Span(answers * fewest / fast / 3600, answers * most / slow / 3600)

    def cheap(self, stage: str) -> Span:
        """Wall hours of a job without devices."""
        low, high = self.declared.minutes.get(stage, (0.0, 0.0))
        return Span(low / 60, high / 60)


def _base(spec: EvaluationSpec) -> str:
    return spec.policy.model.id if isinstance(spec.policy, RunSpec) else spec.policy.id


def _problems(spec: EvaluationSpec, results: Path) -> int:
    """Problems of an evaluation: as in its data, else as its data set declares."""
    card, dataset = results / "data" / f"{spec.benchmark.id}.card.json", spec.benchmark.dataset
    rows = read_json(card)["rows_out"] if card.exists() else dataset.rows or getattr(dataset.source, "count", 100)
    return min(rows, dataset.limit or rows)
