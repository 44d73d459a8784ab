"""The toy that the kit trains: the scale `toy`, which learns within a minute or two, with fewer steps.

`python -m gpu_kit.toy FOLDER` makes its base model, table and problems; the kit is packed with them.
"""

import sys
from pathlib import Path

from ngrpo.data.datasets import make_dataset
from ngrpo.stages.base_models import make_model
from ngrpo.stages.neighbor_tables import make_table
from ngrpo.study.mixing import NeighborMixer
from ngrpo.study.objective import Objective
from ngrpo.study.sources import Dataset, Model, ToyModel, ToyProblems
from ngrpo.study.specs import DatasetSpec, Decoding, ModelSpec, NeighborSpec, RunSpec, Training, TrainingDataSpec

STEPS = 40
BASE = ToyModel(kind="toy")


def _problems(name: str, count: int, seed: int, held_out: bool) -> DatasetSpec:
    source = ToyProblems(kind="toy", count=count, held_out=held_out, validation=held_out, seed=seed)
    return DatasetSpec(id=name, dataset=Dataset(source=source, instruction=""))


TRAIN, VALIDATION = _problems("train", 4096, 11, False), _problems("validation", 64, 12, True)


def spec(dtype: str) -> RunSpec:
    """The run: N-GRPO on the toy. dtype: of engine and trainer; the base is the same."""
    model = ModelSpec(id="toy", model=Model(source=BASE, dtype=dtype))
    return RunSpec(
        id="toy",
        scale="kit",
        model=model,
        data=TrainingDataSpec(dataset=TRAIN, model=model, benchmarks=(VALIDATION,), max_prompt_tokens=16),
        validation=VALIDATION,
        validation_decoding=Decoding(temperature=1.0, top_p=1.0, max_new_tokens=24),
        objective=Objective(),
        exploration=NeighborMixer(kind="neighbors", rho=0.1),
        training=Training(
            steps=STEPS, batch_prompts=16, group=8, mini_batch_prompts=8, learning_rate=1e-4, warmup_steps=5,
            weight_decay=0, temperature=1.0, max_prompt_tokens=16, max_response_tokens=24, validate_every=STEPS,
            validation_samples=4, parity_limit=1e-3 if dtype == "float32" else None,
        ),
        seed=5,
    )  # fmt: skip


def make(folder: Path) -> None:
    """Base model, neighbor table and problems."""
    folder.mkdir(parents=True, exist_ok=True)
    model = spec("float32").model
    make_model(model, folder / "model")
    make_table(
        NeighborSpec(model=model, metric="cosine", k=3), model=folder / "model", out=folder / "table.safetensors"
    )
    make_dataset(TRAIN, folder / "train.parquet")
    make_dataset(VALIDATION, folder / "validation.parquet")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
