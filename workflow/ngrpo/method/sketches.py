"""Sketches: a few numbers of a vector, by which another is known to be the same but for rounding.

An engine takes one of each mixed input where its model reads it, inside a captured graph too; training takes one of
what it feeds there, and compares (random signs: Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4).

| letter | meaning | shape |
|---|---|---|
| x | input embeddings | (N, d) |
| R | signs, ±1, drawn once for all engines and trainers | (d, SIZE) |
| s | sketches x R | (N, SIZE) |

For two vectors the mean of (s − s′)² over R is |x − x′|², whatever they are.
"""

import torch
from torch import Tensor

from ngrpo.method import rng

SIZE = 4
"""Numbers of a sketch. Vectors that differ by 5 times the limit are called equal in one of 5,000 cases (chi-squared
with 4 degrees of freedom), and a step has many mixed inputs."""


def signs(d: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """R (d, SIZE): a pure function of d, the same in every process."""
    row, column = torch.meshgrid(torch.arange(d), torch.arange(SIZE), indexing="ij")
    return (rng.uniform(column, row, rng.SKETCH) < 0.5).to(dtype).mul_(2).sub_(1).to(device)


def deviations(x: Tensor, sketches: Tensor, R: Tensor) -> Tensor:
    """How far each x (N, d) is from the vector with that sketch (N, SIZE), estimated, as a share of |x|: (N,) float32.

    R (d, SIZE) float32. Not finite where a sketch isn't.
    """
    with torch.autocast(x.device.type, enabled=False):
        rows = x.detach().float()
        off = (rows @ R - sketches.float()).square().mean(-1).sqrt()
        return off / rows.norm(dim=-1).clamp_min(1e-30)
