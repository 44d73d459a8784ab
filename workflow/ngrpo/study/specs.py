"""Specs: what determines an artifact, as canonical JSON. Equal specs are one job; a spec file is a job's identity.

A spec nests the specs of what it depends on, holds nothing that only changes speed, place or a title, and leaves
unset knobs out, so that a new knob reruns nothing.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ngrpo.errors import UserError
from ngrpo.files import canonical_json, digest, read_json, write_json
from ngrpo.study.base import Config, Id, unset
from ngrpo.study.engines import EngineName
from ngrpo.study.mixing import DecodingMixer, Metric, NoMixer, Space, TrainingMixer
from ngrpo.study.objective import Objective
from ngrpo.study.sources import Dataset, Model, Repo


def _without_titles(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if k != "title"}
    return [_without_titles(v) for v in value] if isinstance(value, list) else value


class Spec(Config):
    """Common ground of all specs."""

    def json_value(self) -> dict[str, Any]:
        """What is written to the spec file: unset (None) knobs and titles absent."""
        value: dict[str, Any] = _without_titles(self.model_dump(mode="json", exclude_none=True))
        return value

    def text(self) -> str:
        """The spec file's bytes."""
        return canonical_json(self.json_value())

    @cached_property
    def digest(self) -> str:
        """12 hex digits that identify it; every artifact carries its spec's."""
        return digest(self.json_value())


class DatasetSpec(Spec):
    """A data set as the workflow reads it: columns id, problem, answer, solution, kind."""

    type: Literal["dataset"] = "dataset"
    id: Id
    dataset: Dataset


class ModelSpec(Spec):
    """A base model as a Hugging Face folder."""

    type: Literal["model"] = "model"
    id: Id
    model: Model


class TrainingDataSpec(Spec):
    """Training problems that are left after filtering for one model's tokenizer and against every benchmark."""

    type: Literal["training-data"] = "training-data"
    dataset: DatasetSpec
    model: ModelSpec
    benchmarks: tuple[DatasetSpec, ...]
    """Problems in any of these, validation included, are dropped."""
    max_prompt_tokens: int
    near_duplicates: float | None = None
    """Similarity to a benchmark's problem from which problems are dropped, too; None: they stay and are counted."""


class NeighborSpec(Spec):
    """A precomputed neighbor table."""

    type: Literal["neighbors"] = "neighbors"
    model: ModelSpec
    metric: Metric
    k: int
    space: Space | None = None
    """Rows of the input embedding (None: the paper) or of the output layer ("lm_head": the release)."""
    special_tokens: Literal["keep", "exclude"] = "keep"
    """Whether special tokens can be neighbors; Eq. 7 runs over the whole vocabulary, so they can."""


IDLE_STEPS = 20
"""Steps without any policy gradient after which a run ends, where it doesn't say."""


class Training(Config):
    """Hyperparameters of a training run (paper §4.1, Table 6)."""

    steps: int | None = Field(None, ge=1)
    """Optimization steps (rollout batches); None: as many as `epochs` give."""
    epochs: int = Field(1, ge=1)
    """Passes over the training problems, where `steps` isn't given."""
    batch_prompts: int = Field(64, ge=1)
    """Prompts of a rollout batch."""
    group: int = Field(4, ge=2)
    """G, responses a prompt."""
    mini_batch_prompts: int = Field(16, ge=1)
    """Prompts of an update; batch_prompts / mini_batch_prompts updates a rollout. Table 6's "gradient accumulation 4"
    at 64 prompts reads as four updates (16, which the release has) or as one (64)."""
    learning_rate: float = Field(1e-6, gt=0)
    """AdamW's, constant after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Optimization steps in which the learning rate rises to its value."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    temperature: float = Field(0.7, gt=0)
    """τ of rollout, mixing weights and log-probs (Eq. 2, 9)."""
    max_prompt_tokens: int = Field(4096, ge=1)
    """Longest prompt; longer problems are left out of training."""
    max_response_tokens: int = Field(8192, ge=1)
    """Tokens after which a rollout's response is cut."""
    validate_every: int = Field(10, ge=1)
    """Steps between validations; the best checkpoint is chosen among these. The paper doesn't say; the release: 1."""
    validation_ties: Annotated[Literal["earlier", "later"] | None, unset("earlier")] = None
    """Which of two checkpoints with the same validation score is the better one: the earlier (None: ours, the paper
    doesn't say) or the later (the release)."""
    validation_samples: int = Field(32, ge=1)
    """Samples a validation problem."""
    parity_limit: float | None = Field(None, gt=0)
    """Largest |rollout − replayed| log-prob (nats) of a step whose rollout is in float32; above it the run stops. None:
    0.001. In bfloat16 single tokens of healthy runs differ by nats, so none is set: what stops those runs is in
    docs/method.md, "Three guards"."""
    stop_without_gradient: int | None = Field(None, ge=0)
    """Steps in a row without any policy gradient (each group got one reward, so that all advantages are 0) after which
    a run ends, marked as one that learned nothing; 0: never. None: 20."""

    @model_validator(mode="after")
    def _updates_are_whole(self) -> "Training":
        if self.batch_prompts % self.mini_batch_prompts:
            raise PydanticCustomError(
                "updates",
                "{batch} prompts of a batch (batch_prompts) don't divide into updates of {part} (mini_batch_prompts)",
                {"batch": self.batch_prompts, "part": self.mini_batch_prompts},
            )
        return self

    @property
    def idle_steps(self) -> int:
        """`stop_without_gradient` in force; 0: never."""
        return IDLE_STEPS if self.stop_without_gradient is None else self.stop_without_gradient


class RunSpec(Spec):
    """A training run = base model × objective × exploration, with its data, hyperparameters and seed."""

    type: Literal["run"] = "run"
    id: Id
    scale: str
    model: ModelSpec
    data: TrainingDataSpec
    validation: DatasetSpec
    validation_decoding: "Decoding"
    objective: Objective
    exploration: TrainingMixer
    training: Training
    seed: int

    @model_validator(mode="after")
    def _validates_without_mixing(self) -> "RunSpec":
        if self.validation_decoding.mixer != NoMixer():
            raise UserError(
                f"validation would mix inputs ({self.validation_decoding.mixer.kind})",
                where=f"run {self.id}: validation_decoding.mixer",
                do="leave it out: checkpoints are chosen by the policy as standard decoding sees it",
            )
        return self


class PolicySpec(Spec):
    """A policy that was trained elsewhere, by what it holds: a commit of the hub, or a digest of a folder's files."""

    type: Literal["policy"] = "policy"
    id: Id
    model: ModelSpec
    """The base model as which it is asked: tokenizer, chat template, stop."""
    hub: Repo | None = None
    revision: str | None = None
    content: str | None = None
    """SHA-256 of the folder's files."""
    merge: bool | None = None
    """Its base model was named: an adapter is merged with it."""
    own_tokenizer: bool | None = None
    """It is asked with its own tokenizer and chat template."""


class PredictionsSpec(Spec):
    """Samples that were drawn elsewhere, by what their file holds."""

    type: Literal["predictions"] = "predictions"
    id: Id
    sha256: str


class Decoding(Config):
    """How an evaluation draws answers (paper §4.1)."""

    mixer: DecodingMixer = NoMixer()
    temperature: float = Field(0.6, gt=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(8192, ge=1)


class EvaluationSpec(Spec):
    """An evaluation = policy × decoding × benchmark, n samples a problem."""

    type: Literal["evaluation"] = "evaluation"
    scale: str
    policy: RunSpec | ModelSpec | PolicySpec | PredictionsSpec = Field(discriminator="type")
    decoding_id: Id
    decoding: Decoding
    benchmark: DatasetSpec
    max_prompt_tokens: int
    samples: int = Field(32, ge=1)
    """n, samples a problem."""
    seed: int
    engine: EngineName = "sglang"

    @property
    def base(self) -> ModelSpec | None:
        """The base model that its policy is, or was trained from; None: nobody says who drew the samples."""
        if isinstance(self.policy, PredictionsSpec):
            return None
        return self.policy if isinstance(self.policy, ModelSpec) else self.policy.model


GIVEN = "given"
"""In the name of an evaluation whose samples were drawn elsewhere: in place of a decoding."""


class PredictedSpec(EvaluationSpec):
    """An evaluation of samples that were drawn elsewhere: nothing of how they were drawn is known or kept."""

    type: Literal["predicted"] = "predicted"  # type: ignore[assignment]
    policy: PredictionsSpec
    decoding_id: Id = GIVEN
    decoding: Decoding = Field(Decoding(), exclude=True)
    max_prompt_tokens: int = Field(0, exclude=True)
    seed: int = Field(0, exclude=True)
    engine: EngineName = Field("sglang", exclude=True)


AnySpec = Annotated[
    DatasetSpec | ModelSpec | TrainingDataSpec | NeighborSpec | RunSpec | PolicySpec | EvaluationSpec | PredictedSpec,
    Field(discriminator="type"),
]
S = TypeVar("S", bound=Spec)


def read_spec(path: str | Path, kind: type[S]) -> S:
    """The spec in this file. Raises UserError where it is missing, broken or of another kind."""
    try:
        spec = TypeAdapter(AnySpec).validate_python(read_json(path))
    except ValidationError as e:
        first = e.errors()[0]
        raise UserError(
            f"not a spec that this version knows: {first['msg']} at {'.'.join(map(str, first['loc']))}", where=path
        ) from None
    if not isinstance(spec, kind):
        raise UserError(f"this is the spec of a {spec.type}, a {kind.__name__} is needed", where=path)
    return spec


def keep_spec(spec: Spec, path: Path) -> None:
    """Write a spec's file where it is missing or another's; an equal one is left untouched."""
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != spec.text():
        write_json(path, spec.json_value())
