"""Training runs of the tests: a tiny study's files, the launcher, and plugins that leave one thing out.

As a program: `training_runs.py SPEC FILES OUT PLUGIN DEVICES TENSOR_PARALLEL` trains one run; PLUGIN is the name of a
function below, or of one of `faults` (`faults.NAME`: the run is in bfloat16).
"""

import contextlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

from ngrpo.study.specs import RunSpec, read_spec

HERE = Path(__file__).resolve().parent


def whole() -> None:
    """The plugin as it is."""
    from ngrpo.training.verl.plugin import install

    install()


def without_records() -> None:
    """The actor forgets what was fed: it replays token ids."""
    whole()
    from ngrpo.training.verl.actor import KEY, ReplayActor

    def forget(self, micro_batch):
        micro_batch.pop(KEY, None)

    ReplayActor._inputs = forget


def without_likelihood() -> None:
    """The actor takes every step's likelihood for its token's."""
    whole()
    from ngrpo.training.verl.actor import ReplayActor

    ReplayActor.explore = lambda self, mixer: None


def without_weight_sync() -> None:
    """The engine keeps its first weights."""
    whole()
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    from ngrpo.training.verl.rollout import MixingEngine

    update, calls = MixingEngine.update_weights_from_tensor, []

    async def first_only(self, *args, **kwargs):
        calls.append(1)
        return await update(self, *args, **kwargs) if len(calls) == 1 else None

    MixingEngine.update_weights_from_tensor = first_only


def stock_actor() -> None:
    """verl's own actor, which knows nothing of records or mixing."""
    from verl.workers.actor.dp_actor import DataParallelPPOActor

    from ngrpo.training.verl import actor

    class Stock(DataParallelPPOActor):
        mixer = actor.EmbeddingMixer()  # never attached; the worker reads its (empty) statistics

        def explore(self, mixer):
            """Nothing to replay."""

    actor.ReplayActor = Stock
    whole()


def without_plugin() -> None:
    """Stock verl, but for what it needs without a GPU."""
    from ngrpo.training.verl import accelerator

    accelerator.patch()


def without_actor() -> None:
    """The actor's replacement is undone in verl's workers, where it counts."""
    whole()
    import verl.workers.actor
    from verl.workers.actor.dp_actor import DataParallelPPOActor

    from ngrpo.training.verl.replay_worker import ReplayWorker

    start = ReplayWorker.__init__

    def start_and_undo(self, *args, **kwargs):
        start(self, *args, **kwargs)
        verl.workers.actor.DataParallelPPOActor = DataParallelPPOActor

    ReplayWorker.__init__ = start_and_undo


def listening(run: Path) -> list[str]:
    """The addresses on which the trainer and all processes below it listen."""
    import psutil

    trainer = psutil.Process(json.loads((run / "lease.json").read_text())["pid"])
    addresses = set()
    for process in (trainer, *trainer.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            addresses |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return sorted(addresses)


def recording_requests() -> None:
    """Every request's batch (its purpose first) and mixer are written beside the run, as requests.jsonl.

    And, as listening.json, the addresses on which the run's processes listen.
    """
    whole()
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    from ngrpo.training.verl.rollout import MixingEngine, MixingRollout

    build, generate = MixingRollout.__init__, MixingEngine.async_generate

    def build_and_name(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self._engine.requests_file = Path(self.run.run_dir) / "requests.jsonl"

    async def write_and_generate(self, *args, **kwargs):
        self.requests_file.with_name("listening.json").write_text(json.dumps(listening(self.requests_file.parent)))
        with open(self.requests_file, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(parameters) + "\n" for parameters in self.pending)
        return await generate(self, *args, **kwargs)

    MixingRollout.__init__, MixingEngine.async_generate = build_and_name, write_and_generate


def keeping_draws() -> None:
    """Every rollout's records are kept beside the run, as draws/STEP-FIRST_ROW.pickle: a list of packed records."""
    whole()
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    from ngrpo.training.verl.actor import KEY
    from ngrpo.training.verl.rollout import MixingRollout

    stock = MixingRollout.generate_sequences

    def generate_sequences(self, prompts, **kwargs):
        out = stock(self, prompts, **kwargs)
        if KEY in out.non_tensor_batch:
            first = self._rank // self._tp_size * len(prompts)
            path = Path(self.run.run_dir) / "draws" / f"{prompts.meta_info['global_steps']}-{first}.pickle"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(pickle.dumps(list(out.non_tensor_batch[KEY])))
        return out

    MixingRollout.generate_sequences = generate_sequences


def start(
    spec: Path, files: Path, out: Path, plugin: str = "whole", *, devices: int = 1, tensor_parallel: int = 1
) -> subprocess.Popen:
    """Start a run as a process group of its own; its output goes to a file beside the run."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TQDM_DISABLE": "1"}
    arguments = [spec, files, out, plugin, devices, tensor_parallel]
    command = [sys.executable, "-W", "ignore", __file__, *map(str, arguments)]
    with open(spec.parent / "out.txt", "ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def _roll_out_in_bfloat16() -> None:
    """verl's settings ask for an engine in bfloat16, as on a GPU."""
    from ngrpo.training.verl import accelerator

    stock = accelerator.settings

    def settings(*args: object, **known: object) -> dict:
        return {**stock(*args, **known), "actor_rollout_ref.rollout.dtype": "bfloat16"}

    accelerator.settings = settings


def main(spec: Path, files: Path, out: Path, plugin: str, devices: int, tensor_parallel: int) -> None:
    """Train one run; a user's mistake ends with its message and exit code 1."""
    from ngrpo.errors import UserError
    from ngrpo.training.launch import train

    run = read_spec(spec, RunSpec)
    if plugin.startswith("faults."):
        _roll_out_in_bfloat16()
    table = files / "neighbors.safetensors" if run.exploration.kind == "neighbors" else None
    try:
        train(
            run,
            model=files / "model",
            data=files / "train.parquet",
            validation=files / "validation.parquet",
            neighbors=table,
            run_dir=spec.parent,
            out=out,
            checkpoint_every=2,
            devices=devices,
            tensor_parallel=tensor_parallel,
            plugin=plugin if "." in plugin else f"training_runs.{plugin}",
        )
    except UserError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:]))
