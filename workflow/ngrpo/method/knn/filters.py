"""Cheap distances between blocks of rows, each with a proven lower bound (search.py measures what they leave).

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
PackedFilter's s̃ leaves out what all rows share, c_i c_j with c_i = ⟨u_i, m⟩, m a unit vector, which it adds to t.
Rows are scaled to unit length first, so huge and tiny norms cost no precision and can't overflow.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.knn import kernels, packed_rows

_PIECE = 1024  # rows converted at once
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
        return source.float().contiguous()


def measure(E: Tensor, exclude: Tensor | None) -> Rows:
    """Norms of all rows, and the rows that take part: not excluded, not zero. Raises UserError for NaN or inf."""
    norm2 = torch.empty(E.shape[0], dtype=torch.float64, device=E.device)
    largest = torch.zeros((), device=E.device)
    for a in range(0, E.shape[0], _PIECE):
        x = E[a : a + _PIECE].float().contiguous()
        largest = torch.maximum(largest, x.abs().max())
        norm2[a : a + _PIECE] = squared_norms(x)
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


def squared_norms(x: Tensor) -> Tensor:
    """Σ x² of float32 rows (m, d) → (m,) float64."""
    return kernels.squared_norms(x) if x.device.type == "cpu" else x.double().square_().sum(1)


class Filter:
    """A similarity s of row pairs from a fast block operation; pairs' values are at least `lower_bound`'s.

    base, slope, share (n,) float64, epsilon, eta:
    value_ij ≥ base_i + base_j − share_i share_j − slope_i slope_j (s_ij + η|s_ij| + ε).
    dtype: of the operands.
    """

    rows: Rows
    dtype: torch.dtype
    base: Tensor
    slope: Tensor
    share: Tensor
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
        """s (a, b) of two operands, float32 or int32; valid until the next call."""
        raise NotImplementedError

    def _reused(self, a: int, b: int, dtype: torch.dtype) -> Tensor:
        """An (a, b) view of one buffer a type: fresh pages for every block would cost more than filling them."""
        held = self._buffers.get(dtype)
        if held is None or held.numel() < a * b:
            held = self._buffers[dtype] = torch.empty(a * b, dtype=dtype, device=self.rows.E.device)
        return held[: a * b].view(a, b)

    @property
    def bound(self) -> kernels.Bound:
        """base, slope, share, ε, η."""
        return kernels.Bound(self.base, self.slope, self.share, self.epsilon, self.eta)


def lower_bound(s: Tensor, bound: kernels.Bound, i: Tensor, j: Tensor) -> Tensor:
    """base_i + base_j − share_i share_j − slope_i slope_j (s + η|s| + ε) of places i (a,), j (b,): (a, b) float64.

    No value of those pairs lies below it. Values: cosine −⟨u_i, u_j⟩, L2 the squared distance, L1 the distance.
    """
    base, slope, share, epsilon, eta = bound
    t = s.double()
    t = t + eta * t.abs() + epsilon
    return base[i, None] + base[j] - share[i, None] * share[j] - slope[i, None] * slope[j] * t


def _unit_bound(rows: Rows, metric: str) -> tuple[Tensor, Tensor]:
    """base and slope (n,) float64 of a similarity that is ⟨u_i, u_j⟩ or more."""
    if metric == "cosine":
        return torch.zeros_like(rows.norm), torch.ones_like(rows.norm)
    return rows.norm2 * (1 - _F64_SLACK), rows.norm * 2**0.5


def _whole_number_bound(rows: Rows, metric: str, steps: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """base and slope (n,) float64 of ⟨q_i, q_j⟩, summed exactly, with ‖q_i / steps_i − u_i‖ ≤ δ_i: both (n,) float64.

    Rounding hides ε ≤ (e_i + e_j) with e = δ + δ²/2. It goes into base, where it is a row's own: for L2 by
    2 r_i r_j ε ≤ (n_i + n_j) ε.
    """
    base, slope = _unit_bound(rows, metric)
    hidden = delta + delta**2 / 2 + _F64_SLACK
    return base - (hidden if metric == "cosine" else rows.norm2 * 2 * hidden.max()), slope / steps


class AngleFilter(Filter):
    """Cosine and L2: a matrix product of unit rows in float32, bfloat16 or int8.

    int8 entries are u_i·127 / max|u_i|, rounded; their products are summed exactly.
    """

    def __init__(self, rows: Rows, metric: str, dtype: torch.dtype):
        self.rows, self.dtype, self._buffers = rows, dtype, {}
        self.inverse = (1.0 / rows.norm).float()
        extremes = (float(rows.norm.min()), float(rows.norm.max()))
        self.wide = extremes[0] < 1e-30 or extremes[1] > 1e30  # 1/r or x·(1/r) would leave float32's normal range
        self.steps = torch.ones_like(self.inverse)
        delta = self._rounding()
        self.base, self.slope = _unit_bound(rows, metric)
        self.share = torch.zeros_like(rows.norm)
        if dtype == torch.int8:
            self.base, self.slope = _whole_number_bound(rows, metric, self.steps.double(), delta)
            self.epsilon = self.eta = 0.0
            return
        worst = float(delta.max())
        if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
            worst += 2.0**-8  # the product may round its inputs to bfloat16
        # Twice d·2⁻²⁴: fused and unfused multiply-adds, in any order of summation.
        summed = 2 * rows.E.shape[1] * 2.0**-24 * (1 + worst) ** 2
        self.epsilon = 2 * worst + worst**2 + summed + _F64_SLACK
        self.eta = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-24

    def _rounding(self) -> Tensor:
        """Each row's δ (n,) float64, and for int8 its steps."""
        d = self.rows.E.shape[1]
        delta = torch.empty_like(self.rows.norm)
        for a in range(0, len(self.rows), _PIECE):
            at = slice(a, min(a + _PIECE, len(self.rows)))
            unit = self._unit(at)
            if self.dtype == torch.int8:
                self.steps[at] = 127 / unit.abs().amax(1)
            error = unit - self._scaled(at).to(self.dtype).float().div_(self.steps[at, None])
            delta[at] = torch.linalg.vector_norm(error, dim=1)
        return delta * (1 + d * 2.0**-23) + 2.0**-20  # its own rounding, and that of `_unit`

    def _unit(self, at: slice | Tensor) -> Tensor:
        x = self.rows.block(at)
        if self.wide:
            return (x.double() / self.rows.norm[at, None]).float()
        return x * self.inverse[at, None]

    def _scaled(self, at: slice | Tensor) -> Tensor:
        u = self._unit(at)
        return u.mul_(self.steps[at, None]).round_() if self.dtype == torch.int8 else u

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """s̃; for int8 in units of 1 / (steps_i steps_j)."""
        a, b = left.shape[0], right.shape[0]
        if self.dtype == torch.int8:
            return torch._int_mm(left, right.T, out=self._reused(a, b, torch.int32))
        s = torch.mm(left, right.T, out=self._reused(a, b, self.dtype))
        return s if self.dtype == torch.float32 else self._reused(a, b, torch.float32).copy_(s)


class PackedFilter(Filter):
    """Cosine and L2: exact products of whole numbers from −63 to 63, on a CPU with AVX2 (packed_rows.py).

    What all rows share is taken out before they are rounded: trained embeddings have half of their length in one
    direction, and few of its entries are most of it.
    """

    dtype = torch.int8
    epsilon = eta = 0.0

    def __init__(self, rows: Rows, metric: str):
        self.rows, self._buffers = rows, {}
        pieces = [slice(a, min(a + _PIECE, len(rows))) for a in range(0, len(rows), _PIECE)]
        mean = torch.stack([(1 / rows.norm[at]) @ rows.block(at).double() for at in pieces]).sum(0)
        length = torch.linalg.vector_norm(mean)
        self.common = mean / length if length > 1e-6 * len(rows) else torch.zeros_like(mean)  # or rounding is its most
        facts = torch.cat([self._packed(at)[1] for at in pieces])
        self.share, self.steps, delta = (fact.contiguous() for fact in facts.T)
        self.base, self.slope = _whole_number_bound(rows, metric, self.steps, delta + _F64_SLACK)
        if metric == "l2":
            self.share = self.share * rows.norm * 2**0.5

    def _packed(self, at: slice | Tensor) -> tuple[Tensor, Tensor]:
        return packed_rows.pack(self.rows.block(at), self.rows.norm[at], self.common)

    def operand(self, at: slice | Tensor) -> Tensor:
        """Packed rows."""
        return self._packed(at)[0]

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """s̃ in units of 1 / (steps_i steps_j)."""
        a, b = left.shape[0], right.shape[0]
        return packed_rows.products(left, right, self.rows.E.shape[1], self._reused(a + -a % 4, b, torch.int32))


class ManhattanFilter(Filter):
    """L1: minus the sums of absolute differences, in float32, of rows scaled by a power of two."""

    dtype = torch.float32

    def __init__(self, rows: Rows, metric: str):
        self.rows, self._buffers = rows, {}
        d = rows.E.shape[1]
        self.eta = (d + 4) * 2.0**-24  # one rounding a difference, at most d a sum
        self.epsilon = d * 2.0**-120  # scaled entries and differences that underflow
        self.base = torch.zeros_like(rows.norm)
        self.slope, self.share = torch.full_like(rows.norm, 2.0**rows.half_exponent), torch.zeros_like(rows.norm)

    def _scaled(self, at: slice | Tensor) -> Tensor:
        return self.rows.block(at) * 2.0 ** (-2 * self.rows.half_exponent)

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """−D̃, in scaled units."""
        if left.device.type == "cpu":
            return kernels.manhattan(left, right, self._reused(left.shape[0], right.shape[0], torch.float32))
        return -torch.cdist(left, right, p=1.0)
