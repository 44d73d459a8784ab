"""Exact neighbor tables of a whole vocabulary, against a float32 product with top-k, and against float64 on a sample.

Rows: a low-rank part, a common direction and noise, in bfloat16. With `tiny` as a second argument it tries itself.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu_kit.checks.figures import asked
from ngrpo.method.neighbor_table import nearest

K, SAMPLE, WITHIN = 3, 2048, 2.0
"""Candidates; rows compared with float64; how many times a product with top-k the exact table may take."""


def rows(V: int, d: int, device: str) -> Tensor:
    """Made-up embeddings (V, d)."""
    torch.manual_seed(0)
    low = torch.randn(V, 64, device=device) @ torch.randn(64, d, device=device) / 8
    noise = 0.7 * torch.randn(V, d, device=device) + 0.3 * torch.randn(d, device=device)
    return ((low + noise) * 0.02).bfloat16()


def plain(E: Tensor, block: int = 4096) -> Tensor:
    """The K of the largest cosine by a float32 product, itself among them."""
    u = torch.nn.functional.normalize(E.float(), dim=1)
    return torch.cat([(u[a : a + block] @ u.T).topk(K, -1).indices for a in range(0, len(u), block)])


def truth(E: Tensor, some: Tensor) -> Tensor:
    """The same of these rows in float64."""
    u = torch.nn.functional.normalize(E.double(), dim=1)
    return torch.cat([(u[part] @ u.T).topk(K, -1).indices for part in some.split(128)])


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and seconds."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    began = time.perf_counter()
    out = run()
    wait()
    return out, time.perf_counter() - began


def main() -> None:
    """Print and keep the figures."""
    figures, device = asked(), "cuda" if torch.cuda.is_available() else "cpu"
    for V, d in ((2048, 64),) if "tiny" in sys.argv else ((151_936, 1536), (151_936, 3584)):
        E, name = rows(V, d, device), f"V = {V:,}, d = {d:,}"
        timed(lambda E=E: plain(E[:8192]))  # warms up
        _, peer = timed(lambda E=E: plain(E))
        table, ours = timed(lambda E=E: nearest(E, K, "cosine"))
        figures.add(f"{name}: product with top-k", peer, "s")
        figures.add(f"{name}: exact table", ours, "s")
        figures.add(f"{name}: exact table, in such products", ours / peer, at_most=WITHIN)
        some = torch.arange(0, V, max(1, V // SAMPLE), device=E.device)
        differ = int((table[some] != truth(E, some)).any(1).sum())
        figures.add(f"{name}: rows of {len(some):,} that float64 has otherwise", differ, equal=0)


if __name__ == "__main__":
    main()
