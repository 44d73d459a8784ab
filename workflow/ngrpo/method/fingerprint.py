"""A fingerprint of weights: equal where two processes hold the same embedding matrix to the last bit.

The rollout engine puts its own into every record, the trainer computes it of its weights: an engine that missed an
update is found with certainty, however small the update. Sums wrap modulo 2⁶⁴ and don't depend on their order, so that
devices, chunks and tensor-parallel shards agree.
"""

import torch
from torch import Tensor

_ODD, _GOLDEN = 0x2545F4914F6CDD1D, -7046029254386353131  # odd multipliers: every bit of an index reaches the sum
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
CHUNK = 4096
"""Rows that are converted at a time."""


def fingerprint(E: Tensor, dtype: torch.dtype, first: int = 0) -> Tensor:
    """The fingerprint of rows (R, d) as they are in dtype, a scalar int64; parts of a matrix sum to the whole's.

    first: the part's first row in the matrix. Rows of zeros add nothing.
    """
    d, device = E.shape[1], E.device
    column = (torch.arange(d, device=device) * 2 + 1) * _ODD
    total = torch.zeros((), dtype=torch.int64, device=device)
    for at in range(0, E.shape[0], CHUNK):
        bits = E[at : at + CHUNK].detach().to(dtype).contiguous().view(_BITS[dtype]).long()
        row = ((torch.arange(len(bits), device=device) + first + at) * 2 + 1) * _GOLDEN
        total = total + ((bits * column).sum(1) * row).sum()
    return total
