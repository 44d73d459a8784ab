"""Counter-based random numbers: a pure function of (seed, position, stream), equal on every device and in any batch.

The mixing gate (Eq. 11), the sampled token and Gaussian noise each have a stream of their own. Because nothing is
drawn from a shared generator, batching, retraction, tensor parallelism, restarts and resume can't change a draw.

Departures from the paper: none (it only says Bernoulli(rho) per sequence and step).
"""

import hashlib
import math

import torch
from torch import Tensor

GATE, TOKEN, NOISE, GUMBEL = 1, 2, 3, 4  # streams: mix at this step? / which token? / Gaussian noise / Gumbel noise
REWARD, NEIGHBOR = 5, 6  # of controls: a reward that says nothing / a neighbor that is none
SKETCH = 7  # the signs of sketches
DRAWS = 8  # which tokens, beside the one that is written?

_MASK = (1 << 64) - 1


def _signed(x: int) -> int:
    """The int64 with the same 64 bits as x: torch's integer products wrap, as the hash needs."""
    x &= _MASK
    return x - (1 << 64) if x >> 63 else x


# SplitMix64's increment and multipliers (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195)
_GOLDEN, _M1, _M2 = _signed(0x9E3779B97F4A7C15), _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, n: int) -> Tensor:
    """Logical (zero-filling) right shift of int64."""
    return (x >> n) & ((1 << (64 - n)) - 1)


def _scramble(x: Tensor) -> Tensor:
    """SplitMix64's finalizer: a bijection of 64-bit words in which every input bit reaches every output bit."""
    x = (x ^ _shift_right(x, 30)) * _M1
    x = (x ^ _shift_right(x, 27)) * _M2
    return x ^ _shift_right(x, 31)


def words(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """64 random bits for each (seed, position): int64 tensors of one shape in, the same shape out."""
    return _scramble(_scramble(_scramble(seed + _GOLDEN) ^ (position * _GOLDEN)) + _signed(stream * _GOLDEN))


def uniform(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    """A uniform number in [0, 1) for each (seed, position): int64 tensors in, float64 of the same shape out.

    One operator, since every decoding step needs it: the chain of `_on_cpu`, on a GPU one kernel.
    """
    return torch.ops.ngrpo.uniform(seed, position, stream)


def _on_cpu(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    return _shift_right(words(seed, position, stream), 11).double() * 2.0**-53


def _on_gpu(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    from ngrpo.method import fused

    return fused.uniform(seed, position, stream)


def _shape(seed: Tensor, position: Tensor, stream: int) -> Tensor:
    return torch.empty_like(seed + position, dtype=torch.float64)


_operators = torch.library.Library("ngrpo", "FRAGMENT")
_operators.define("uniform(Tensor seed, Tensor position, int stream) -> Tensor")
for _device, _form in (("CPU", _on_cpu), ("CUDA", _on_gpu), ("Meta", _shape)):
    _operators.impl("uniform", _form, _device)


def _lanes(seed: Tensor, position: Tensor, stream: int, n: int) -> Tensor:
    """n random words for each (seed, position): (M,) int64 in, (M, n) int64 out."""
    lane = torch.arange(n, device=seed.device) * _GOLDEN
    return _scramble(words(seed, position, stream)[:, None] + lane)


def uniforms(seed: Tensor, position: Tensor, stream: int, n: int) -> Tensor:
    """n uniform numbers in [0, 1) for each (seed, position): (M,) int64 in, (M, n) float64 out."""
    return _shift_right(_lanes(seed, position, stream, n), 11).double() * 2.0**-53


def gumbel(seed: Tensor, position: Tensor, n: int) -> Tensor:
    """n standard Gumbel numbers for each (seed, position): (M,) int64 in, (M, n) float32 out."""
    u = (_shift_right(_lanes(seed, position, GUMBEL, n), 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(u)).float()


def normal(seed: Tensor, position: Tensor, n: int) -> Tensor:
    """n standard normal numbers for each (seed, position) by Box-Muller: (M,) int64 in, (M, n) float32 out."""
    x = _lanes(seed, position, NOISE, (n + 1) // 2)
    radius = torch.sqrt(-2 * torch.log((_shift_right(x, 32).double() + 0.5) * 2.0**-32))
    angle = (x & 0xFFFFFFFF).double() * (2 * math.pi * 2.0**-32)
    pairs = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1)
    return pairs.flatten(-2)[:, :n].float()


def derive_seed(root: int, *names: object) -> int:
    """A request's seed in [0, 2**62) from the study's root seed and whatever names the request.

    Names are hashed as text, so that derive_seed(1, "rollout", 12, 3) never meets derive_seed(1, "rollout", 1, 23).
    """
    text = "\x1f".join(str(part) for part in (root, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 2
