"""Rollout throughput: sglang with the plugin at ρ=0.1 against the same engine without it (paper: 0.90 to 0.91).

Both engines run side by side, one at a time, on the same random model, prompts and lengths, with log-probs, as verl
asks for them. Runs are interleaved; a row shows the medians, its ratio is the median of the pairs' ratios. The plugin
draws its tokens itself, faster than sglang's CPU sampler does, so a second row has our own ρ=0 as its peer: what mixing
alone costs.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rows import row

ENV = "train"
NAMES = ("rollout", "rollout-vs-rho0")
GOAL = 0.97
ROUNDS = 7
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 32, 64
RHO, TEMPERATURE = 0.1, 0.7
VOCABULARY, HIDDEN, LAYERS = 16384, 256, 4


def rows() -> list[dict[str, Any]]:
    """ρ=0.1 against the engine without the plugin, and against the plugin at ρ=0."""
    with tempfile.TemporaryDirectory() as folder:
        model, table = Path(folder) / "model", Path(folder) / "neighbors.safetensors"
        speeds = _measure(model, table, _make(model, table))
    ours = speeds["mixing"]
    size = f"{PROMPTS} prompts of {PROMPT_TOKENS}+{NEW_TOKENS} tokens, d={HIDDEN}, {LAYERS} layers, V={VOCABULARY}"
    return [
        row(
            name, ours=statistics.median(ours), peer=statistics.median(speeds[peer]), unit="tokens/s",
            ratio=statistics.median(a / b for a, b in zip(ours, speeds[peer], strict=True)), at_least=GOAL,
            note=f"rho={RHO}; {size}; median of {ROUNDS} pairs; peer: {what}",
        )
        for name, peer, what in (
            ("rollout", "stock", "sglang without the plugin, which samples in its own slower way"),
            ("rollout-vs-rho0", "rho0", "the plugin at rho=0"),
        )
    ]  # fmt: skip


def run_stock_scheduler(*args: Any) -> None:
    """A stock scheduler process, with what it needs on this machine and no more."""
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    cpu.patch()
    from sglang.srt.managers.scheduler import run_scheduler_process

    run_scheduler_process(*args)


def _make(model: Path, table: Path) -> list[list[int]]:
    """A random model of a realistic shape for 2 cores, its neighbor table, and prompts."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from ngrpo.method.neighbor_table import build

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.1,
        eos_token_id=1,
        pad_token_id=0,
    )
    made = Qwen2ForCausalLM(config)
    made.save_pretrained(model)
    build(made.get_input_embeddings().weight, 3, "cosine").save(table)
    return torch.randint(3, VOCABULARY, (PROMPTS, PROMPT_TOKENS)).tolist()


def _measure(model: Path, table: Path, prompts: list[list[int]]) -> dict[str, list[float]]:
    """Tokens a second of our engine with and without mixing, and of the stock one, in interleaved runs."""
    from ngrpo.engines.sglang import cpu, request_params
    from ngrpo.engines.sglang.engine import SGLangEngine
    from ngrpo.method.mixers import NeighborMixer

    cpu.prepare()
    import sglang.srt.entrypoints.engine as entry

    common = {"temperature": TEMPERATURE, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    entry.run_scheduler_process = run_stock_scheduler
    stock = entry.Engine(
        **cpu.server_arguments(
            {
                "model_path": str(model),
                "dtype": "float32",
                "random_seed": 0,
                "log_level": "error",
                "skip_tokenizer_init": True,
            }
        )
    )
    try:
        with SGLangEngine(model, table) as engine:

            def run_ours(rho: float, number: int) -> float:
                mixer = NeighborMixer(rho)
                params = [
                    {**common, "custom_params": request_params(mixer, 1000 * number + i, (f"{rho}-{number}", PROMPTS))}
                    for i in range(PROMPTS)
                ]
                return _speed(engine.server, prompts, params)

            def run_stock(number: int) -> float:
                if number:  # before its first request an sglang engine hears no answers
                    stock.flush_cache()
                return _speed(stock, prompts, common)

            runs = {"stock": run_stock, "mixing": partial(run_ours, RHO), "rho0": partial(run_ours, 0.0)}
            speeds: dict[str, list[float]] = {name: [] for name in runs}
            for number in range(ROUNDS + 1):  # the first round warms up
                for name in list(runs)[:: 1 if number % 2 else -1]:
                    speed = runs[name](number)
                    if number:
                        speeds[name].append(speed)
            return speeds
    finally:
        stock.shutdown()


def _speed(server: Any, prompts: list[list[int]], params: Any) -> float:
    """Generated tokens a second of one run."""
    began = time.perf_counter()
    server.generate(input_ids=prompts, sampling_params=params, return_logprob=True)
    return PROMPTS * NEW_TOKENS / (time.perf_counter() - began)
