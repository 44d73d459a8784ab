"""Is what the engine fed what its records say? float32, through CUDA graphs where there is a card.

Log-probs of eight responses (ρ = 0.3) against an independent forward pass on the CPU that feeds their records: equal
but for rounding. The controls: without records, and from an engine that records mixtures but doesn't feed them.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_kit.checks import counted
from gpu_kit.checks.figures import asked

REQUESTS = 8
MOST, LEAST = 1e-4, 0.1
"""Largest difference with records, and smallest largest one without."""


def main() -> None:
    """Print and keep the figures."""
    figures = asked()
    import gpu_model
    import torch
    import unmixed
    from one_card import SHARE
    from replaying import SAMPLING, differences, requests

    import ngrpo.engines.sglang as plugin
    from ngrpo.engines import open_engine
    from ngrpo.engines.sglang import cpu

    card = torch.cuda.is_available()
    cpu.GPU_DEFAULTS = SHARE
    with tempfile.TemporaryDirectory() as home:
        os.environ[counted.FILE] = f"{home}/replays"
        model, table = gpu_model.make(Path(home))
        responses = requests(REQUESTS)

        def sampled(scheduler: Callable, **machine: Any) -> list:
            plugin.run_scheduler = scheduler
            with open_engine("sglang", model, table, dtype="float32", **machine) as engine:
                return engine.generate(responses, SAMPLING)

        samples = sampled(counted.run_scheduler)
        off = differences(model, responses, samples)
        figures.add("tokens compared", len(off))
        figures.add("largest difference of a log-prob, records replayed", float(off.max()), "nats", at_most=MOST)
        figures.add("mean difference", float(off.mean()), "nats")
        dropped = differences(model, responses, samples, drop=True)
        figures.add("control, records dropped: largest difference", float(dropped.max()), "nats", at_least=LEAST)
        if card:
            figures.add("CUDA graphs replayed", counted.replays(), at_least=1)
            eager = sampled(plugin_scheduler, disable_cuda_graph=True)
            same = sum(a.tokens == b.tokens for a, b in zip(samples, eager, strict=True))
            figures.add(f"responses of {REQUESTS} with the same tokens without graphs", same, equal=REQUESTS)
            same = sum(a.log_probs == b.log_probs for a, b in zip(samples, eager, strict=True))
            figures.add(f"responses of {REQUESTS} with the same bits of all log-probs", same)
        feeding = differences(model, responses, sampled(unmixed.run_scheduler))
        figures.add(
            "control, mixtures recorded but not fed: largest difference", float(feeding.max()), "nats", at_least=LEAST
        )


def plugin_scheduler(*args: Any) -> None:
    """The plugin's own."""
    from ngrpo.engines.sglang import hooks

    hooks.run_scheduler(*args)


if __name__ == "__main__":
    main()
