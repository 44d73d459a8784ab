"""What a study takes on disk, computed from its models' parameters; nothing of it was measured at the paper's scale.

| what | bytes |
|---|---|
| a base model, an exported policy | 2 a parameter (4 where the model's dtype is float32) |
| a checkpoint of verl | 12 a parameter: weights and AdamW's two moments in float32 |
| a training at its peak | three checkpoints (two kept, one being written) and three policies (theirs, and a new best) |
| a finished run | its policy; with `keep_checkpoints` two checkpoints, too |
| samples | 4 a token of the declared response length, the longest |

What a merge of shards or an export writes on the way is the third policy. Logs, data, tables and grades are within
SPARE.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ngrpo.planning.costs import Costs
from ngrpo.study.declared_costs import ModelCosts
from ngrpo.study.expand import Study
from ngrpo.study.sources import Model
from ngrpo.study.specs import EvaluationSpec

CHECKPOINT, TOKEN = 12, 4  # bytes of a parameter, of a token
CHECKPOINTS, POLICIES = 3, 3  # of a training at its peak
SPARE = 10**9


@dataclass(frozen=True)
class Room:
    """Bytes that a study takes."""

    stays: float
    """When all is done."""
    one: float
    """At the peak, with one training at a time."""
    many: float
    """At the peak, with as many trainings at a time as there can be."""


def policy_bytes(model: Model, costs: ModelCosts) -> float:
    """A model's weights, as they lie on disk."""
    return (costs.parameters or 0) * (4 if model.dtype == "float32" else 2)


def training_bytes(model: Model, costs: ModelCosts) -> float:
    """What a training takes at its peak, beside the policy that stays."""
    return CHECKPOINTS * CHECKPOINT * (costs.parameters or 0) + POLICIES * policy_bytes(model, costs)


def room(
    study: Study,
    costs: Costs,
    *,
    models: Iterable[str] | None = None,
    runs: Iterable[str] | None = None,
    evaluations: Iterable[str] | None = None,
    at_once: int | None = None,
) -> Room:
    """What these models, runs and evaluations take; None: all of the study. at_once: trainings; None: all."""
    staying = 2 * CHECKPOINT if study.size.keep_checkpoints else 0
    stays, trainings = float(SPARE), []
    for name in study.models if models is None else models:
        stays += policy_bytes(study.models[name].model, costs.model(name))
    for name in study.runs if runs is None else runs:
        model = study.runs[name].model
        declared = costs.model(model.id)
        stays += policy_bytes(model.model, declared) + staying * (declared.parameters or 0)
        trainings.append(training_bytes(model.model, declared) - staying * (declared.parameters or 0))
    for name in study.evaluations if evaluations is None else evaluations:
        stays += _samples(study.evaluations[name], costs)
    largest = sorted(trainings, reverse=True)
    return Room(stays, stays + sum(largest[:1]), stays + sum(largest[:at_once]))


def _samples(spec: EvaluationSpec, costs: Costs) -> float:
    _, longest = costs.model(spec.base.id if spec.base else "").response_tokens
    return TOKEN * longest * spec.samples * costs.problems(spec)


def unknown(study: Study, costs: Costs) -> list[str]:
    """Models of the study whose parameters aren't declared."""
    return [name for name in study.models if costs.model(name).parameters is None]
