"""A scheduler process that counts the CUDA graphs it replays."""

import os
from pathlib import Path
from typing import Any

from ngrpo.engines.sglang import cpu, hooks

FILE = "NGRPO_KIT_REPLAYS"
"""Environment variable: the file that holds the number."""


def run_scheduler(*args: Any) -> None:
    """As the plugin's."""
    with hooks.quiet_import():
        cpu.prepare()
        from sglang.srt.model_executor.cuda_graph_runner import CudaGraphRunner
    replay, file, done = CudaGraphRunner.replay, Path(os.environ[FILE]), [0]

    def counting(runner: Any, *given: Any, **named: Any) -> Any:
        done[0] += 1
        file.write_text(str(done[0]))
        return replay(runner, *given, **named)

    CudaGraphRunner.replay = counting
    hooks.run_scheduler(*args)


def replays() -> int:
    """How many graphs were replayed."""
    file = Path(os.environ[FILE])
    return int(file.read_text()) if file.exists() else 0
