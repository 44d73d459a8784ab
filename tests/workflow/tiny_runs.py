"""A tiny study for tests of training: its specs, its files, and runs as processes that can be killed."""

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import training_runs

from ngrpo.data.datasets import make_dataset
from ngrpo.files import write_json
from ngrpo.stages.base_models import make_model
from ngrpo.stages.neighbor_tables import make_table
from ngrpo.study.layout import Results, RunFiles
from ngrpo.study.mixing import NeighborMixer
from ngrpo.study.objective import Objective
from ngrpo.study.run_log import read_metrics
from ngrpo.study.sources import Dataset, Model, ToyModel, ToyProblems
from ngrpo.study.specs import (
    DatasetSpec,
    Decoding,
    ModelSpec,
    NeighborSpec,
    RunSpec,
    Training,
    TrainingDataSpec,
)
from ngrpo.training.watching import WatchedRun, watched_run

STEPS, LIMIT = 6, 1e-3
TOY = ToyModel(kind="toy", steps=220)  # enough to be right now and then: without rewards nothing would be tested
STOP = "}"  # ends a response, too: rollout, training and evaluation must agree on where it ends
MODEL = ModelSpec(id="tiny", model=Model(source=TOY, dtype="float32", stop=STOP))
MIXING = NeighborMixer(kind="neighbors", rho=0.5)


def _dataset(name: str, count: int, held_out: bool) -> DatasetSpec:
    source = ToyProblems(kind="toy", count=count, terms=(2, 2), held_out=held_out, validation=held_out, seed=3)
    return DatasetSpec(id=name, dataset=Dataset(source=source, instruction=""))


TRAIN, VALIDATION = _dataset("train", 32, False), _dataset("validation", 8, True)


def tiny_spec(exploration, steps: int = STEPS, *, limit: float | None = LIMIT, **objective) -> RunSpec:
    """A run of so many steps of eight prompts × four responses. limit: of the largest difference in float32."""
    return RunSpec(
        id="run",
        scale="test",
        model=MODEL,
        data=TrainingDataSpec(dataset=TRAIN, model=MODEL, benchmarks=(VALIDATION,), max_prompt_tokens=16),
        validation=VALIDATION,
        validation_decoding=Decoding(temperature=1.0, top_p=1.0, max_new_tokens=20),
        objective=Objective(**objective),
        exploration=exploration,
        training=Training(
            steps=steps, batch_prompts=8, group=4, mini_batch_prompts=4, learning_rate=1e-3, temperature=1.0,
            max_prompt_tokens=16, max_response_tokens=20, validate_every=2, validation_samples=2, parity_limit=limit,
        ),
        seed=5,
    )  # fmt: skip


def make_files(folder: Path) -> Path:
    """Model, table and problems of all runs, in this folder."""
    make_model(MODEL, folder / "model")
    table = NeighborSpec(model=MODEL, metric="cosine", k=3)
    make_table(table, model=folder / "model", out=folder / "neighbors.safetensors")
    make_dataset(TRAIN, folder / "train.parquet")
    make_dataset(VALIDATION, folder / "validation.parquet")
    return folder


@dataclass
class Run:
    """A run's folder and what its process said."""

    folder: Path
    code: int
    after_kill: WatchedRun | None = None
    """How it was watched when its first process had been killed."""

    @property
    def metrics(self) -> list[dict]:
        return read_metrics(RunFiles(self.folder).metrics)

    @property
    def weights(self) -> bytes:
        return (self.folder / "model" / "model.safetensors").read_bytes()

    @property
    def said(self) -> str:
        return (self.folder / "out.txt").read_text()


def make_run(folder: Path, spec: RunSpec, files: Path, *, plugin: str = "whole", kill: bool = False, **ranks) -> Run:
    """Train a run in a process of its own, or two where the first is killed (-9) in the middle."""
    path = folder / "spec.json"
    write_json(path, spec.json_value())
    seen = None
    if kill:
        kill_in_the_middle(path, files, plugin, ranks)
        seen = watched_run(Results(folder.parent.parent), folder.name, spec)
    return replace(finish(training_runs.start(path, files, folder / "model", plugin, **ranks), folder), after_kill=seen)


def finish(process, folder: Path) -> Run:
    """The run, once its process has ended."""
    return Run(folder, process.wait(timeout=400))


def kill_in_the_middle(spec: Path, files: Path, plugin: str, ranks: dict) -> None:
    """Start a run and kill -9 all of it once its first checkpoint is whole and before the last step."""
    process = training_runs.start(spec, files, spec.parent / "model", plugin, **ranks)
    marker = spec.parent / "checkpoints" / "checkpoint.json"
    deadline = time.monotonic() + 300
    while not marker.exists():
        assert process.poll() is None, (spec.parent / "out.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    group = os.getpgid(process.pid)
    os.killpg(group, signal.SIGKILL)
    process.wait()
    assert json.loads(marker.read_text())["step"] < STEPS
    assert not (spec.parent / "model").exists()
