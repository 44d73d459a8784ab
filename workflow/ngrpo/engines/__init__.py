"""Who samples: each engine is a folder here, found by its name. `contract` says what every engine promises.

| engine | for |
|---|---|
| sglang | every scale: stock sglang with a plugin that mixes |
| transformers | the tests' oracle, and where sglang can't run |

A new engine is a new folder with an engine.py that has `open(model, neighbors, mixers, dtype, **machine)`; nothing else
names it but `engine:` in a scale's file.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path

from ngrpo.engines.contract import Engine
from ngrpo.errors import unknown_name
from ngrpo.method.mixers import Mixer
from ngrpo.study.engines import engine_names


def open_engine(
    name: str, model: Path, neighbors: Path | None = None, mixers: Sequence[Mixer] = (), **machine: object
) -> Engine:
    """Start the engine `name` on a Hugging Face folder, with a neighbor table's file.

    mixers: those that requests will ask for; refused here where the table doesn't serve them. machine: settings of the
    engine that change speed and memory, never samples (e.g. max_running_requests); and `dtype`, the type that it
    computes in (left out: what `model_folder.engine_dtype` says of the folder). Raises UserError, with the nearest
    name, where there is no such engine.
    """
    if name not in engine_names():
        raise unknown_name("engine", name, engine_names(), where="engine")
    engine: Engine = importlib.import_module(f"ngrpo.engines.{name}.engine").open(model, neighbors, mixers, **machine)
    return engine
