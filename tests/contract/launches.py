"""What a decoding step of the plugin asks of a device: kernel launches, and values that the host waits for.

On a CPU every dispatched operation that isn't a view stands for one launch; `rng.uniform` and `sampling.restrict` are
operators of one kernel each.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FILE = "NGRPO_TEST_LAUNCHES"
"""Environment variable: where the counting scheduler writes a line a decoding step."""
READS = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "item",
        "is_nonzero",
        "equal",
        "nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
    )
)
EMPTY = frozenset(f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty"))
FREE = EMPTY | {"aten::detach", "aten::lift_fresh"}


def reads_host(func: Any, args: tuple) -> bool:
    """Whether an operation gives the host a value of the device, or a shape that depends on one."""
    if func._schema.name == "aten::index":
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return func._schema.name in READS or (func._schema.name == "aten::repeat_interleave" and len(args) < 2)


def launches(func: Any) -> bool:
    """Whether an operation computes anything: views and fresh memory cost nothing."""
    views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    return not views and func._schema.name not in FREE


class Counting(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if reads_host(func, args):
            self.reads[func._schema.name] += 1
        elif launches(func):
            self.launches[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def run_scheduler(*args: Any) -> None:
    """The plugin's scheduler, which counts what each decoding step's sampling and input take."""
    from ngrpo.engines.sglang import hooks, state

    sample, next_input, sketched = state.MixState.sample, state.MixState._next_input, state.MixState._sketched
    counting = Counting()

    def counted_input(self: Any, *given: Any) -> Any:
        with counting:
            return next_input(self, *given)

    def counted_sketch(self: Any, fed: Any) -> Any:
        with counting:
            return sketched(self, fed)

    def counted_sample(self: Any, stock: Any, out: Any, batch: Any) -> Any:
        with counting:
            token = sample(self, stock, out, batch)
        if not batch.ngrpo.extends:
            for _, step in batch.ngrpo.steps:  # on a CPU these copies to the host are none
                counting.launches["to host"] += sum(t is not None for t in (*step[1:4], step.sigma, step.state))
            line = {"launches": counting.launches, "reads": counting.reads, "requests": len(batch.ngrpo.reqs)}
            with Path(os.environ[FILE]).open("a") as file:
                file.write(json.dumps(line) + "\n")
        counting.launches, counting.reads = Counter(), Counter()
        return token

    state.MixState.sample, state.MixState._next_input = counted_sample, counted_input
    state.MixState._sketched = counted_sketch
    hooks.run_scheduler(*args)
