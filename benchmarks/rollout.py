"""Rollout throughput: sglang with the plugin at ρ=0.1 against the same engine without it (paper: 0.90 to 0.91).

Both engines run side by side, one at a time, on the same random model, prompts and lengths, with log-probs, as verl
asks for them. Runs are interleaved; the row shows the medians, its ratio is the median of the pairs' ratios.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

ENV = "train"
GOAL = 0.97
ROUNDS = 7
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 32, 64
RHO, TEMPERATURE = 0.1, 0.7
VOCABULARY, HIDDEN, LAYERS = 16384, 256, 4


def rows() -> list[dict[str, Any]]:
    """The row "sglang rollout, rho=0.1"; goal: at least 0.97 of the stock engine's tokens a second."""
    with tempfile.TemporaryDirectory() as folder:
        model, table = Path(folder) / "model", Path(folder) / "neighbours.safetensors"
        prompts = _make(model, table)
        ours, peer = _measure(model, table, prompts)
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    return [
        {
            "name": f"sglang rollout, rho={RHO}",
            "ours": round(statistics.median(ours), 1),
            "peer": round(statistics.median(peer), 1),
            "unit": "tokens/s",
            "ratio": round(ratio, 3),
            "goal": GOAL,
            "met": ratio >= GOAL,
        }
    ]


def run_stock_scheduler(*args: Any) -> None:
    """A stock scheduler process, with what it needs on this machine and no more."""
    from ngrpo.engines.sglang import cpu

    cpu.prepare()
    cpu.patch()
    from sglang.srt.managers.scheduler import run_scheduler_process

    run_scheduler_process(*args)


def _make(model: Path, table: Path) -> list[list[int]]:
    """A random model of a realistic shape for 2 cores, its neighbour table, and prompts."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from ngrpo.method.neighbours import build

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


def _measure(model: Path, table: Path, prompts: list[list[int]]) -> tuple[list[float], list[float]]:
    """Tokens a second of our engine and of the stock one, in interleaved runs."""
    from ngrpo.engines.sglang import SGLangEngine, cpu, request_params
    from ngrpo.method.mixers import NeighbourMixer

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

            def run_ours(number: int) -> float:
                mixer = NeighbourMixer(rho=RHO)
                params = [
                    {**common, "custom_params": request_params(mixer, 1000 * number + i, (f"run{number}", PROMPTS))}
                    for i in range(PROMPTS)
                ]
                return _speed(engine.server, prompts, params)

            def run_stock(number: int) -> float:
                if number:  # before its first request an sglang engine hears no answers
                    stock.flush_cache()
                return _speed(stock, prompts, common)

            ours, peer = [], []
            for number in range(ROUNDS + 1):  # the first pair warms up
                pair = [(ours, run_ours), (peer, run_stock)]
                for speeds, run in pair if number % 2 else reversed(pair):
                    speed = run(number)
                    if number:
                        speeds.append(speed)
            return ours, peer
    finally:
        stock.shutdown()


def _speed(server: Any, prompts: list[list[int]], params: Any) -> float:
    """Generated tokens a second of one run."""
    began = time.perf_counter()
    server.generate(input_ids=prompts, sampling_params=params, return_logprob=True)
    return PROMPTS * NEW_TOKENS / (time.perf_counter() - began)


if __name__ == "__main__":
    for row in rows():
        print(row)
