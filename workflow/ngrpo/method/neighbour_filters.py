"""Cheap distances between blocks of rows, each with a proven lower bound (the first half of the exact search).

| letter | meaning |
|---|---|
| x_i, n_i, r_i | row i of E, its squared norm, its norm (float64) |
| u_i | x_i / r_i |
| û_i | u_i rounded to the filter's number format |
| δ | the largest ‖û_i − u_i‖ over all rows, measured |
| s̃_ij | ⟨û_i, û_j⟩ as the matrix product returned it |
| ε, η | |s̃_ij − ⟨u_i, u_j⟩| ≤ ε + η·|s̃_ij| |

By Cauchy-Schwarz ε = 2δ + δ² + the rounding of the sum, and η is the rounding of the product's output. So with
t = s̃ + ε + η|s̃| no true value lies below
  cosine: −t;   L2 (squared): n_i + n_j − 2 r_i r_j t;   L1: D̃·(1 − γ) with D̃ summed in float32.
Rows are scaled to unit length first, so huge and tiny norms cost no precision and can't overflow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method import neighbour_kernels as kernels

METRICS = ("cosine", "l2", "l1")
_PIECE = 1024  # rows converted at once
_PAIRS = 4096  # pairs measured at once
_F64_SLACK = 1e-12  # far above every float64 rounding error here (d·2⁻⁵³ < 1e-12 up to d = 9000)


@dataclass(frozen=True)
class Rows:
    """The rows that take part in a search: which, and their norms.

    E (V, d) any float type, any device. index (n,) int64, ascending ids of the rows that take part.
    norm2 (n,) float64. norm (n,) float64. half_exponent: sums over E·4^−half_exponent can't overflow float32.
    """

    E: Tensor
    index: Tensor
    norm2: Tensor
    norm: Tensor
    half_exponent: int

    def __len__(self) -> int:
        return self.index.numel()

    @property
    def whole(self) -> bool:
        """Whether every row of E takes part, so that blocks can be views."""
        return len(self) == self.E.shape[0]

    def block(self, at: slice | Tensor) -> Tensor:
        """The rows at these places of `index`, float32 (m, d)."""
        source = self.E[at] if self.whole else self.E[self.index[at]]
        return source.float()


def measure(E: Tensor, exclude: Tensor | None) -> Rows:
    """Norms of all rows, and the rows that take part: not excluded, not zero. Raises UserError for NaN or inf."""
    norm2 = torch.empty(E.shape[0], dtype=torch.float64, device=E.device)
    largest = torch.zeros((), device=E.device)
    for a in range(0, E.shape[0], _PIECE):
        x = E[a : a + _PIECE].float()
        largest = torch.maximum(largest, x.abs().max())
        norm2[a : a + _PIECE] = x.double().square_().sum(1)
    bad = torch.nonzero(~torch.isfinite(norm2)).flatten()
    if bad.numel():
        raise UserError(
            f"the embedding matrix has {bad.numel()} row(s) with NaN or infinite entries",
            where=f"row {int(bad[0])}",
            do="check the checkpoint: a training run has diverged or a file is damaged",
        )
    takes_part = norm2 > 0
    if exclude is not None:
        takes_part &= ~exclude.to(E.device)
    index = torch.nonzero(takes_part).flatten()
    norm2 = norm2[index]
    exponent = int(torch.frexp(largest).exponent)
    return Rows(E, index, norm2, norm2.sqrt(), max(0, exponent - 99) // 2)


class Filter:
    """A similarity s of row pairs from a fast block operation; pairs' values are at least `lower_bound`.

    base, slope (n,) float64, epsilon, eta: value_ij ≥ base_i + base_j − slope_i slope_j (s_ij + η|s_ij| + ε).
    dtype: of the operands.
    """

    rows: Rows
    dtype: torch.dtype
    base: Tensor
    slope: Tensor
    epsilon: float
    eta: float
    _buffers: dict[torch.dtype, Tensor]

    def operand(self, at: slice | Tensor) -> Tensor:
        """What `similarity` takes for these rows (m, d), built in pieces so that temporaries stay small."""
        size = at.stop - at.start if isinstance(at, slice) else at.numel()
        out = torch.empty(size, self.rows.E.shape[1], dtype=self.dtype, device=self.rows.E.device)
        for a in range(0, size, _PIECE):
            b = min(a + _PIECE, size)
            out[a:b] = self._scaled(slice(at.start + a, at.start + b) if isinstance(at, slice) else at[a:b])
        return out

    def _scaled(self, at: slice | Tensor) -> Tensor:
        raise NotImplementedError

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """s (a, b) of two operands, float32; valid until the next call."""
        raise NotImplementedError

    def _reused(self, a: int, b: int, dtype: torch.dtype) -> Tensor:
        """An (a, b) view of one buffer a type: fresh pages for every block would cost more than filling them."""
        held = self._buffers.get(dtype)
        if held is None or held.numel() < a * b:
            held = self._buffers[dtype] = torch.empty(a * b, dtype=dtype, device=self.rows.E.device)
        return held[: a * b].view(a, b)

    def lower_bound(self, similarity: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """No value of the pairs of places i (a,), j (b,) lies below this: (a, b) float64; unit: `exact_values`."""
        return lower_bound(similarity, self.base, self.slope, self.epsilon, self.eta, i, j)


def lower_bound(
    similarity: Tensor, base: Tensor, slope: Tensor, epsilon: float, eta: float, i: Tensor, j: Tensor
) -> Tensor:
    """base_i + base_j − slope_i slope_j (s + η|s| + ε): s (a, b), i (a,), j (b,) → (a, b) float64."""
    s = similarity.double()
    t = s + eta * s.abs() + epsilon
    return base[i, None] + base[j] - slope[i, None] * slope[j] * t


class AngleFilter(Filter):
    """Cosine and L2: a matrix product of unit rows in bfloat16 or float32."""

    def __init__(self, rows: Rows, metric: str, dtype: torch.dtype):
        self.rows, self.dtype, self._buffers = rows, dtype, {}
        self.inverse = (1.0 / rows.norm).float()
        extremes = (float(rows.norm.min()), float(rows.norm.max()))
        self.wide = extremes[0] < 1e-30 or extremes[1] > 1e30  # 1/r or x·(1/r) would leave float32's normal range
        d = rows.E.shape[1]
        delta = 0.0
        for a in range(0, len(rows), _PIECE):
            unit = self._scaled(slice(a, min(a + _PIECE, len(rows))))
            delta = max(delta, float(torch.linalg.vector_norm(unit - unit.to(dtype).float(), dim=1).max()))
        delta = delta * (1 + d * 2.0**-24) + 2.0**-21  # its own rounding, and that of `_scaled`
        if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
            delta += 2.0**-8  # the product may round its inputs to bfloat16
        # Twice d·2⁻²⁴: fused and unfused multiply-adds, in any order of summation.
        self.epsilon = 2 * delta + delta**2 + 2 * d * 2.0**-24 * (1 + delta) ** 2 + _F64_SLACK
        self.eta = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-24
        if metric == "cosine":
            self.base, self.slope = torch.zeros_like(rows.norm), torch.ones_like(rows.norm)
        else:
            self.base, self.slope = rows.norm2 * (1 - _F64_SLACK), rows.norm * 2**0.5

    def _scaled(self, at: slice | Tensor) -> Tensor:
        x = self.rows.block(at)
        if self.wide:
            return (x.double() / self.rows.norm[at, None]).float()
        return x * self.inverse[at, None]

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """s̃."""
        s = torch.mm(left, right.T, out=self._reused(left.shape[0], right.shape[0], self.dtype))
        if self.dtype == torch.float32:
            return s
        return self._reused(left.shape[0], right.shape[0], torch.float32).copy_(s)


class ManhattanFilter(Filter):
    """L1: minus the sums of absolute differences, in float32, of rows scaled by a power of two."""

    dtype = torch.float32

    def __init__(self, rows: Rows, metric: str):
        self.rows, self._buffers = rows, {}
        d = rows.E.shape[1]
        self.eta = (d + 4) * 2.0**-24  # one rounding a difference, at most d a sum
        self.epsilon = d * 2.0**-120  # scaled entries and differences that underflow
        self.base = torch.zeros_like(rows.norm)
        self.slope = torch.full_like(rows.norm, 2.0**rows.half_exponent)

    def _scaled(self, at: slice | Tensor) -> Tensor:
        return self.rows.block(at) * 2.0 ** (-2 * self.rows.half_exponent)

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """−D̃, in scaled units."""
        if left.device.type == "cpu":
            return kernels.manhattan(left, right, self._reused(left.shape[0], right.shape[0], torch.float32))
        return -torch.cdist(left, right, p=1.0)


def exact_values(rows: Rows, i: Tensor, j: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Float64 distances of pairs of places i, j (p,) by the direct formula: (ordering keys (p,), values (p,)).

    Keys order the candidates of one i; values are comparable with the filters' bounds: cosine −⟨u_i, u_j⟩, L2 the
    squared distance, L1 the distance. The cosine's key is −g|g|/n_j, g = ⟨x_i, x_j⟩: one division and no root, so that
    parallel rows with small whole entries tie exactly.
    """
    sums = torch.empty(i.numel(), 2, dtype=torch.float64, device=i.device)
    direct = rows.whole and rows.E.dtype == torch.float32 and rows.E.is_contiguous()
    for a in range(0, i.numel(), _PAIRS):
        p, q = i[a : a + _PAIRS], j[a : a + _PAIRS]
        if rows.E.device.type != "cpu":
            sums[a : a + _PAIRS] = _pair_sums(rows.block(p), rows.block(q), metric)
        elif direct:
            sums[a : a + _PAIRS] = kernels.pair_sums(rows.E, p, rows.E, q, metric)
        else:
            order = torch.arange(p.numel())
            sums[a : a + _PAIRS] = kernels.pair_sums(rows.block(p), order, rows.block(q), order, metric)
    if metric != "cosine":
        return sums[:, 0], sums[:, 0]
    key = -sums[:, 0] * sums[:, 0].abs() / sums[:, 1]
    return key, key.sign() * (key.abs() / rows.norm2[i]).sqrt()


def _pair_sums(left: Tensor, right: Tensor, metric: str) -> Tensor:
    """`kernels.pair_sums` in torch's operations, for other devices; left, right (p, d)."""
    x, y = left.double(), right.double()
    if metric == "cosine":
        return torch.stack([(x * y).sum(1), y.square().sum(1)], 1)
    first = (x - y).square().sum(1) if metric == "l2" else (x - y).abs().sum(1)
    return torch.stack([first, torch.zeros_like(first)], 1)
