"""Tokens a second with and without mixing through the whole engine, at the shape of Qwen2.5-1.5B, random weights.

Paper, Table 14: N-GRPO's rollout is 9 to 10 % slower. Runs alternate; the slowdown is the median of the pairs'. With
`tiny` as a second argument it tries itself on a CPU, and its figures mean nothing.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gpu_kit.checks.figures import asked

SHAPE = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 1536,
    "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "eos_token_id": 151_643, "bos_token_id": 151_643,
    "use_sliding_window": False, "initializer_range": 0.02, "attention_dropout": 0.0,
}  # fmt: skip
SMALL = {**SHAPE, "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
         "num_attention_heads": 4, "eos_token_id": 1, "bos_token_id": None}  # fmt: skip
RHO, SLOWDOWN = 0.1, 0.03
MACHINE = {"mem_fraction_static": 0.75, "max_total_tokens": 180_000, "cuda_graph_bs": [1, 8, 64, 128, 256]}


def folder(home: Path, shape: dict) -> tuple[Path, Path]:
    """A model's configuration without weights, and a table of random neighbors."""
    import torch

    from ngrpo.method.neighbor_table import Table

    (home / "model").mkdir()
    (home / "model" / "config.json").write_text(json.dumps(shape))
    V = shape["vocab_size"]
    ids = torch.cat([torch.arange(V)[:, None], torch.randint(V, (V, 2))], 1).int()
    Table(ids, torch.zeros(V, dtype=torch.bool), "cosine", "keep", V, "").save(home / "neighbors.safetensors")
    return home / "model", home / "neighbors.safetensors"


def main() -> None:
    """Print and keep the figures."""
    figures = asked()
    import torch

    from ngrpo.engines import open_engine
    from ngrpo.engines.contract import Request, Sampling
    from ngrpo.method.mixers import NeighborMixer, NoMixer

    tiny = "tiny" in sys.argv
    sizes, prompt, new, rounds = ((4,), 8, 12, 2) if tiny else ((64, 128, 256), 128, 320, 4)
    with tempfile.TemporaryDirectory() as home:
        model, table = folder(Path(home), SMALL if tiny else SHAPE)
        machine = {"load_format": "dummy", "max_running_requests": max(sizes) + 1, **({} if tiny else MACHINE)}
        with open_engine("sglang", model, table, [NeighborMixer(RHO)], **machine) as engine:

            def speed(rho: float, n: int, seed: int) -> float:
                generator = torch.Generator().manual_seed(seed)
                texts = torch.randint(10, 500, (n, prompt), generator=generator).tolist()
                mixer = NeighborMixer(rho) if rho else NoMixer()
                requests = [Request(tuple(text), seed * 1000 + i, mixer) for i, text in enumerate(texts)]
                began = time.perf_counter()
                samples = engine.generate(requests, Sampling(1.0, new))
                return sum(len(s.tokens) for s in samples) / (time.perf_counter() - began)

            for rho in (0.0, RHO):
                speed(rho, sizes[0], 1)  # warms up
            for n in sizes:
                pairs = []
                for number in range(rounds):
                    seed, order = 10 * n + number, (0.0, RHO) if number % 2 else (RHO, 0.0)
                    found = {rho: speed(rho, n, seed) for rho in order}
                    pairs.append((found[0.0], found[RHO]))
                plain, mixed = (statistics.median(side) for side in zip(*pairs, strict=True))
                slowdown = 1 - statistics.median(b / a for a, b in pairs)
                figures.add(f"batch {n}: without mixing", plain, "tokens/s")
                figures.add(f"batch {n}: ρ = {RHO}", mixed, "tokens/s")
                figures.add(f"batch {n}: slowdown of mixing", slowdown, at_most=SLOWDOWN)


if __name__ == "__main__":
    main()
