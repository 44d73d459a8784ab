"""Faults for the guards, as plugins of `training_runs`: in the records of a step, or in the engine from that step on.

The engine's faults run in sglang's scheduler processes, which find `run_scheduler` here by its module and name.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 2
"""In which a fault begins."""


def in_bfloat16() -> None:
    """Workers train in bfloat16 autocast, as on a GPU, in place of the CPU's float32."""
    from ngrpo.training.verl import accelerator, plugin

    accelerator._ON_CPU = tuple(r for r in accelerator._ON_CPU if r not in accelerator._IN_FLOAT32)
    plugin.install()


def healthy() -> None:
    """Nothing is wrong."""
    in_bfloat16()


def _harming(change: Callable[[np.ndarray], None]) -> None:
    """Change a rollout's packed records in the step of the fault."""
    in_bfloat16()
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    from ngrpo.training.verl.actor import KEY
    from ngrpo.training.verl.rollout import MixingRollout

    stock = MixingRollout.generate_sequences

    def generate_sequences(self: Any, prompts: Any, **kwargs: Any) -> Any:
        out = stock(self, prompts, **kwargs)
        if KEY in out.non_tensor_batch and prompts.meta_info["global_steps"] == STEP:
            change(out.non_tensor_batch[KEY])
        return out

    MixingRollout.generate_sequences = generate_sequences


def _longest(records: np.ndarray) -> int:
    """The row whose record holds most."""
    return int(np.argmax([len(packed) for packed in records]))


def dropped() -> None:
    """One record forgets its steps."""
    from ngrpo.method.records import Record

    def change(records: np.ndarray) -> None:
        row = _longest(records)
        r = Record.unpack(records[row])
        records[row] = Record(r.index[:0], r.ids[:0], r.weights[:0], r.length, r.digest, r.origin).pack()

    _harming(change)


def shifted() -> None:
    """One record's steps come one later."""
    from dataclasses import replace

    from ngrpo.method.records import Record

    def change(records: np.ndarray) -> None:
        row = _longest(records)
        record = Record.unpack(records[row])
        records[row] = replace(record, index=record.index + 1).pack()

    _harming(change)


def foreign() -> None:
    """One response has the next one's record."""

    def change(records: np.ndarray) -> None:
        records[5] = records[6]

    _harming(change)


def stale() -> None:
    """The engine misses the update of its weights before the step."""
    in_bfloat16()
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    from ngrpo.training.verl.rollout import MixingEngine

    update, calls = MixingEngine.update_weights_from_tensor, []

    async def missing(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return await update(self, *args, **kwargs) if len(calls) < STEP else None

    MixingEngine.update_weights_from_tensor = missing


def _in_engine(fault: str) -> None:
    """Let sglang's scheduler processes run with a fault: a function below."""
    in_bfloat16()
    from ngrpo.engines import sglang

    os.environ["ENGINE_FAULT"] = fault
    sglang.run_scheduler = run_scheduler


def wrong_table() -> None:
    """The engine feeds mixtures of other tokens than it looks up and records."""
    _in_engine("feed_others")


def unmixed() -> None:
    """The engine's graph feeds the token's embedding where it records a mixture."""
    _in_engine("feed_tokens")


def wrong_temperature() -> None:
    """The engine's kernel divides logits by another temperature than it was asked for."""
    _in_engine("heat")


def run_scheduler(*args: Any) -> None:
    """As the plugin's, with the fault, once the weights have come as often as the step says."""
    from ngrpo.engines.sglang import hooks, state

    globals()[os.environ["ENGINE_FAULT"]](state)
    hooks.run_scheduler(*args)


def _when_due(state: Any, owner: Any, name: str, faulty: Callable) -> None:
    """Replace a function by one that gets the stock one first, from the step of the fault on."""
    updates, stock, changed = [], getattr(owner, name), state.MixState.weights_changed

    def count(self: Any) -> None:
        updates.append(1)
        changed(self)

    def either(*args: Any, **kwargs: Any) -> Any:
        return stock(*args, **kwargs) if len(updates) < STEP else faulty(stock, *args, **kwargs)

    state.MixState.weights_changed = count
    setattr(owner, name, either)


def feed_others(state: Any) -> None:
    """Every candidate but the anchor is another token."""

    def faulty(stock: Any, step: Any, *args: Any) -> Any:
        ids = (step.ids + 7) % 25  # of the toy model's 25 tokens
        ids[:, 0] = step.ids[:, 0]
        return stock(step._replace(ids=ids), *args)

    _when_due(state, state, "feed", faulty)


def feed_tokens(state: Any) -> None:
    """Decoding feeds embeddings alone."""
    _when_due(state, state.MixState, "_next_input", lambda stock, self, rows, slot: rows)


def heat(state: Any) -> None:
    """Everything is drawn a third hotter."""
    _when_due(state, state, "scale", lambda stock, logits, temperature: stock(logits, temperature * 1.33))
