"""What one decoding step of the plugin costs by itself: µs on the device, µs until the call returns, at V = 151,936.

With `tiny` as a second argument it tries itself on a CPU, and its figures mean nothing.
"""

import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gpu_kit.checks.figures import Figures, asked
from ngrpo.engines.sglang import cpu
from ngrpo.method.mixers import GaussianMixer, GumbelMixer, Mixer, NeighborMixer, NoMixer, SoftThinkingMixer
from ngrpo.method.neighbor_table import Table

TINY = "tiny" in sys.argv
DEVICE = "cpu" if TINY else "cuda"
V, D, SLOTS, TIMES = (512, 64, 300, 3) if TINY else (151_936, 1536, 300, 40)
NO_LIMIT = 1 << 30
CASES: tuple[tuple[str, Mixer, float], ...] = (
    ("no mixing", NoMixer(), 1.0),
    ("ρ = 0.1", NeighborMixer(0.1), 1.0),
    ("no mixing, top-p 0.95", NoMixer(), 0.95),
    ("ρ = 0.1, top-p 0.95", NeighborMixer(0.1), 0.95),
    ("Gaussian noise", GaussianMixer(), 1.0),
    ("Gumbel, whole vocabulary", GumbelMixer(), 1.0),
    ("soft thinking, 5 kept", SoftThinkingMixer(keep=5), 1.0),
)


class Embedding(torch.nn.Module):
    """A whole vocabulary's layer, as sglang's are."""

    tp_size = 1
    shard_indices = types.SimpleNamespace(org_vocab_start_index=0)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(V, D, device=DEVICE).bfloat16(), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows (…, D)."""
        return torch.nn.functional.embedding(ids.long(), self.weight)


class Mode:
    """A decoding step's."""

    @staticmethod
    def is_extend() -> bool:
        return False

    @staticmethod
    def is_decode() -> bool:
        return True


def mix_state() -> Any:
    """The plugin's state on a runner that has no more than it looks at."""
    from ngrpo.engines.sglang.state import MixState, PluginSettings

    layer = Embedding()
    runner = types.SimpleNamespace(
        model=types.SimpleNamespace(model=types.SimpleNamespace(embed_tokens=layer), forward=None, lm_head=layer),
        device=DEVICE,
        req_to_token_pool=types.SimpleNamespace(size=SLOTS),
        model_config=types.SimpleNamespace(vocab_size=V),
        _preprocess_logits=lambda *_: None,
    )
    ids = torch.cat([torch.arange(V)[:, None], torch.randint(V, (V, 2))], 1).int()
    table = Table(ids, torch.zeros(V, dtype=torch.bool), "cosine", "keep", V, "")
    return MixState(runner, table, PluginSettings(None, "cosine", 3))


def batch_of(mixer: Mixer, B: int, top_p: float) -> Any:
    """A decoding step of B requests, as the scheduler hands it over."""
    from ngrpo.engines.sglang.plan import BatchPlan, RequestState

    params = types.SimpleNamespace(top_p=top_p, top_k=NO_LIMIT)
    reqs = [types.SimpleNamespace(ngrpo=RequestState(i, mixer), sampling_params=params) for i in range(B)]
    plan = BatchPlan(types.SimpleNamespace(reqs=reqs, forward_mode=Mode))
    at = torch.arange(B, device=DEVICE)
    info = types.SimpleNamespace(
        temperatures=torch.ones(B, 1, device=DEVICE),
        top_ps=torch.full((B,), top_p, device=DEVICE),
        top_ks=torch.full((B,), NO_LIMIT, dtype=torch.int32, device=DEVICE),
    )
    return types.SimpleNamespace(
        ngrpo=plan, req_pool_indices=at, seq_lens=at + 900, sampling_info=info, return_logprob=True, forward_mode=Mode
    )


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Median µs on the device, and µs until the call returns while the device is busy; on a CPU both are one."""
    for _ in range(3):
        run()
    spans, launches = [], []
    for _ in range(TIMES):
        if not TINY:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            torch.cuda._sleep(3_000_000)  # so that launches get ahead of the device
            begin.record()
        began = time.perf_counter()
        run()
        launches.append((time.perf_counter() - began) * 1e6)
        if not TINY:
            end.record()
            torch.cuda.synchronize()
            spans.append(begin.elapsed_time(end) * 1e3)
    launch = sorted(launches)[TIMES // 2]
    return (sorted(spans)[TIMES // 2] if spans else launch), launch


def as_graph(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same as a captured CUDA graph."""
    if TINY:
        return run
    with torch.cuda.stream(torch.cuda.Stream()):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@torch.no_grad()
def measure(figures: Figures) -> None:
    """All of it."""
    state = mix_state()

    def note(what: str, run: Callable[[], Any]) -> None:
        device, launch = timed(run)
        figures.add(f"{what}: on the device", round(device), "µs")
        figures.add(f"{what}: to launch", round(launch), "µs")

    for B in (4,) if TINY else (64, 128, 256):
        logits = torch.randn(B, V, device=DEVICE) * 3
        for name, mixer, top_p in CASES:
            batch = batch_of(mixer, B, top_p)
            out = types.SimpleNamespace(next_token_logits=logits, next_token_logprobs=None)
            note(f"batch {B}, sampling, {name}", partial(state.sample, None, out, batch))
        rows, slot = state._lookup(torch.randint(V, (B,), device=DEVICE)), torch.arange(B, device=DEVICE)
        note(f"batch {B}, the embedding's part in a graph", as_graph(partial(state._next_input, rows, slot)))


def main() -> None:
    """Print and keep the figures."""
    figures = asked()
    cpu.prepare()
    measure(figures)


if __name__ == "__main__":
    main()
