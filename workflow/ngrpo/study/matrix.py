"""The matrix of a study: the specs that its methods, models, data sets and decodings make, whether asked for or not."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ngrpo.study.config import ScaleFile, StudyFile
from ngrpo.study.mixing import NoMixer
from ngrpo.study.reading import parse
from ngrpo.study.specs import (
    DatasetSpec,
    Decoding,
    EvaluationSpec,
    ModelSpec,
    PolicySpec,
    PredictedSpec,
    PredictionsSpec,
    RunSpec,
    Training,
    TrainingDataSpec,
)
from ngrpo.study.switches import release


@dataclass(frozen=True)
class Matrix:
    """What is compared, at one scale."""

    scale: str
    study: StudyFile
    size: ScaleFile

    @property
    def first_seed(self) -> int:
        """The study's own training seed; the further ones are the numbers after it."""
        return self.study.seed

    @cached_property
    def datasets(self) -> dict[str, DatasetSpec]:
        """Every data set of the scale."""
        return {i: DatasetSpec(id=i, dataset=d) for i, d in self.size.datasets.items()}

    @cached_property
    def models(self) -> dict[str, ModelSpec]:
        """Every base model of the scale."""
        return {i: ModelSpec(id=i, model=m) for i, m in self.size.models.items()}

    @cached_property
    def training_data(self) -> dict[str, TrainingDataSpec]:
        """The filtered training problems, one a model (their token limit is the model's tokenizer's)."""
        kept_out = dict.fromkeys((*self.size.benchmarks, self.size.validation))
        return {
            i: TrainingDataSpec(
                dataset=self.datasets[self.size.training_data],
                model=model,
                benchmarks=tuple(self.datasets[b] for b in kept_out),
                max_prompt_tokens=self.size.training.max_prompt_tokens,
                near_duplicates=self.size.near_duplicates,
            )
            for i, model in self.models.items()
        }

    def run_spec(self, method_id: str, model_id: str, seed: int | None = None) -> RunSpec:
        """The run of a method on a model, with the study's own seed or a further one."""
        method, size = self.study.methods[method_id], self.size
        where = f"methods.{method_id}"
        training = parse(Training, {**size.training.model_dump(), **method.training}, f"{where}.training")
        parts: dict[str, Any] = {"exploration": method.exploration, "objective": method.objective, "training": training}
        if method.fidelity == "release":
            given = {"exploration": method.exploration, "objective": method.objective, "training": method.training}
            parts = release(parts, given, size.release.get(model_id, {}), where)
        return RunSpec(
            id=f"{method_id}-{model_id}" + (f"-seed{seed}" if seed is not None else ""),
            scale=self.scale,
            model=self.models[model_id],
            data=self.training_data[model_id],
            validation=self.datasets[size.validation],
            validation_decoding=Decoding(mixer=NoMixer(), **size.decoding.model_dump()),
            seed=self.study.seed if seed is None else seed,
            **parts,
        )

    def evaluation_spec(
        self, policy: RunSpec | ModelSpec | PolicySpec, decoding: str, benchmark: str
    ) -> EvaluationSpec:
        """A policy under a decoding on a benchmark; a trained one's samples have its seed."""
        return EvaluationSpec(
            scale=self.scale,
            policy=policy,
            decoding_id=decoding,
            decoding=Decoding(mixer=self.study.decodings[decoding].mixer, **self.size.decoding.model_dump()),
            benchmark=self.datasets[benchmark],
            max_prompt_tokens=self.size.training.max_prompt_tokens,
            samples=self.size.evaluation.samples,
            seed=policy.seed if isinstance(policy, RunSpec) else self.study.seed,
            engine=self.size.evaluation.engine,
        )

    def predicted_spec(self, predictions: PredictionsSpec, benchmark: str) -> PredictedSpec:
        """Samples from elsewhere on a benchmark: the first n of each problem."""
        return PredictedSpec(
            scale=self.scale,
            policy=predictions,
            benchmark=self.datasets[benchmark],
            samples=self.size.evaluation.samples,
        )
