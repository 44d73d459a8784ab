"""What work is declared to cost: config/costs.yaml (`ngrpo.planning` puts what was measured in its place)."""

from typing import Literal

from pydantic import Field, model_validator

from ngrpo.study.base import Config, Id

COSTS_FILE = "costs.yaml"
CpuStage = Literal[
    "dataset", "model", "training_data", "neighbors", "diagnostics", "grade", "analyze", "notebook", "report"
]


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
    parameters: float | None = Field(None, gt=0)
    """Of the model, for the room that its weights and checkpoints take; None: not known."""

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
    minutes: dict[CpuStage, tuple[float, float]]
    """Of a job of each cheap stage."""

    @model_validator(mode="after")
    def _ordered(self) -> "ScaleCosts":
        for stage, (low, high) in self.minutes.items():
            if not 0 <= low <= high:
                raise ValueError(f"minutes.{stage}: {low} to {high} is no range from low to high")
        return self


class DeclaredNoise(Config):
    """How much chance there is between runs, on the scale of log-odds that a sample is correct."""

    run: float = Field(ge=0, le=3)
    """Standard deviation of a training run, over all problems at once."""
    method_problem: float = Field(ge=0, le=3)
    """Standard deviation of what a method makes of a problem, whatever the run."""
    run_problem: float = Field(ge=0, le=3)
    """Standard deviation of what a run makes of a problem."""
    source: str = Field(min_length=1)
    """Who says so."""


class CostsFile(Config):
    """config/costs.yaml."""

    currency: str
    """Of `gpu_hour`."""
    gpu_hour: float = Field(ge=0)
    """Money of the currency that one GPU takes an hour."""
    noise: DeclaredNoise | None = None
    """What `ngrpo power` plans with; without it no power is told."""
    scales: dict[Id, ScaleCosts]
    """Costs by scale."""
