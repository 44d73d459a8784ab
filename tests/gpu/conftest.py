"""Checks for a machine with a GPU: `make test-gpu ENV=.venv-gpu`. One card does: its engines share it (`one_card`).

On a GPU engines run as the paper's study runs them: bfloat16, sglang's own attention kernels, CUDA graphs. On a CPU
the same tests compare what a CPU has, in float32; what needs a GPU is skipped by name.
"""

from contextlib import ExitStack

import gpu_model
import pytest
from one_card import one_card

__all__ = ["one_card"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random Qwen2 with peaked outputs and heads that GPU kernels take, and its neighbor table's file."""
    return gpu_model.make(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="module")
def start(model):
    """start(name of a scheduler or None, **server arguments) → an engine; each is started once in a module."""
    import ngrpo.engines.sglang as plugin
    from ngrpo.engines import open_engine

    engines = {}
    with ExitStack() as stack:

        def get(scheduler=plugin.run_scheduler, **machine):
            key = (scheduler.__module__, *sorted(machine.items()))
            if key not in engines:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(plugin, "run_scheduler", scheduler)
                    engines[key] = stack.enter_context(open_engine("sglang", *model, **machine))
            return engines[key]

        yield get
