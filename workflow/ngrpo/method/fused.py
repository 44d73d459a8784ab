"""Triton kernels that GPUs use in place of chains of PyTorch operations: one launch each, nothing read on the host.

`rng.uniform` and `sampling.restrict` are PyTorch operators: a CPU runs the form that is written there, a GPU runs the
kernel here. Both give the same numbers; tests hold the kernels to the other form in Triton's interpreter, and
`make test-gpu` on a GPU. Only machines with a GPU import this module, for Triton is nowhere else needed.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-calls=False
# (Triton's language has types of its own, which no annotation names)

import torch
import triton  # type: ignore[import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-untyped,unused-ignore]
from torch import Tensor

_WORDS = 256  # random numbers of one program
_PIECE = 2048  # entries of a row that one program looks at together
_WARPS = 8


@triton.jit
def _scramble(x):
    """SplitMix64's finalizer, as `rng._scramble`."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def _uniform(seed, position, out, n, STREAM: tl.constexpr, BLOCK: tl.constexpr):
    """One uniform number an element, as `rng.uniform`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    x = tl.load(seed + at, mask=here, other=0).to(tl.int64).to(tl.uint64, bitcast=True)
    place = tl.load(position + at, mask=here, other=0).to(tl.int64).to(tl.uint64, bitcast=True)
    x = _scramble(x + 0x9E3779B97F4A7C15) ^ (place * 0x9E3779B97F4A7C15)
    x = _scramble(_scramble(x) + STREAM)
    tl.store(out + at, (x >> 11).to(tl.float64) * 1.1102230246251565e-16, mask=here)  # 2⁻⁵³


@triton.jit
def _above(p, bits, V, BLOCK: tl.constexpr):
    """Sum (float64) and count of a row's entries above the float32 with these bits."""
    threshold = bits.to(tl.float32, bitcast=True)
    mass = tl.zeros((BLOCK,), tl.float64)
    count = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(p + at, mask=at < V, other=0.0)
        mass += tl.where(x > threshold, x, 0.0).to(tl.float64)
        count += (x > threshold).to(tl.int32)
    return tl.sum(mass, 0), tl.sum(count, 0)


@triton.jit
def _before(mass, value):
    """What likelier tokens hold, in float32 as `sampling.restrict` rounds it: mass (float64) includes the token."""
    return mass.to(tl.float32) - value


@triton.jit
def _nucleus(p, top_p, top_k, out, V, BLOCK: tl.constexpr):
    """A row's nucleus: the least entry that is in it by bisection over float32's bits, then its ties by their ids."""
    row = tl.program_id(0).to(tl.int64)
    p += row * V
    out += row * V
    most = tl.load(top_p + row)
    most = tl.where(most >= 1.0, float("inf"), most)
    k = tl.load(top_k + row).to(tl.int32)
    limit = tl.where(k > 0, k, V)
    low = tl.zeros((), tl.int32)
    high = tl.full((), 0x7F7FFFFF, tl.int32)  # nothing is above the largest number, so an entry there would be kept
    for _ in range(31):
        middle = low + (high - low) // 2
        mass, count = _above(p, middle, V, BLOCK)
        value = middle.to(tl.float32, bitcast=True)
        inside = (_before(mass + value.to(tl.float64), value) < most) & (count < limit)
        high = tl.where(inside, middle, high)
        low = tl.where(inside, low, middle + 1)
    mass, count = _above(p, high, V, BLOCK)
    value = high.to(tl.float32, bitcast=True)
    ties = tl.zeros((), tl.int32)  # of them, how many came before
    for start in range(0, V, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(p + at, mask=at < V, other=0.0)
        tie = (x == value).to(tl.int32)
        number = ties + tl.cumsum(tie, 0)
        here = _before(mass + number.to(tl.float64) * value.to(tl.float64), value) < most
        inside = (x > value) | ((tie > 0) & here & (count + number <= limit))
        tl.store(out + at, tl.where(inside, x, 0.0), mask=at < V)
        ties += tl.sum(tie, 0)


def uniform(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """As `rng.uniform`: (…,) int64 twice → (…,) float64."""
    seed, position = (t.contiguous() for t in torch.broadcast_tensors(seed, position))
    out = torch.empty(seed.shape, dtype=torch.float64, device=seed.device)
    n = out.numel()
    step = stream * 0x9E3779B97F4A7C15 % (1 << 64)
    _uniform[(triton.cdiv(n, _WORDS),)](seed, position, out, n, STREAM=step, BLOCK=_WORDS)
    return out


def restrict(p: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """As `sampling.restrict`: p (B, V) float32, top_p (B,) float32, top_k (B,) integers → (B, V)."""
    p, out = p.contiguous(), torch.empty_like(p, memory_format=torch.contiguous_format)
    rows, V = p.shape
    _nucleus[(rows,)](p, top_p.contiguous(), top_k.contiguous(), out, V, BLOCK=_PIECE, num_warps=_WARPS)
    return out
