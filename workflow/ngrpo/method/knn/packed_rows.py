"""Products of rows of small whole numbers, by the 8-bit instructions that every x86 processor since 2013 has (AVX2).

One instruction multiplies 32 pairs of bytes and adds them in twos to sixteen 16-bit sums. For none to overflow:

1. entries are whole numbers q from −63 to 63, and the left row's are taken as q + 64, since it wants them unsigned: two
   products of at most 127·63 fit in 16 bits;
2. a row is cut into parts of up to 1024 entries, whose sums are added up in 32 bits at the part's end. The sixteenth
   of a part that meets in one sum has a norm of at most 181, so that by Cauchy-Schwarz no sum leaves 16 bits there;
3. a sum starts at −64 Σ q over the right row's entries that it will meet, which takes the 64 out again: sums wrap on
   the way, and are exact at the end.

A packed row is so: for every part its 16 starts in 16 bits, then its entries in 8; a part's last ones may be zeros.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from ngrpo.method.knn.kernels import REORDER, Array, in_threads

LEVELS = 63
_LANE_NORM = 176.0  # before rounding, which adds at most 4
_STARTS, _UNIT, _PART = 32, 64, 1024  # bytes of starts; entries that the kernel takes at once; a part's most entries
_ROWS = 4  # left rows that share a load of two right ones
_COLUMNS, _HELD = 128, 20_000  # right rows that stay in the second cache meanwhile; bytes of left rows in the first
_LONG, _INT = ir.IntType(64), ir.IntType(32)
_BYTES, _SHORTS, _INTS = (ir.VectorType(ir.IntType(bits), 256 // bits) for bits in (8, 16, 32))


def layout(d: int) -> tuple[int, int]:
    """Parts of a row of d entries, and entries a part, padding included."""
    parts = -(-d // _PART)
    return parts, -(-d // (parts * _UNIT)) * _UNIT


@intrinsic
def _four_by_two(_: Any, left: Any, right: Any, then: Any, parts: Any, entries: Any, out: Any, stride: Any) -> Any:
    """⟨left row, right row⟩ of 4 left rows and 2 right ones, int32; addresses and sizes in bytes.

    left: 4 rows of parts·entries unsigned q + 64. right: a packed row; the other one `then` bytes on, 0 where there is
    none. To out, out + stride, … for the first, and 4 bytes on for the second.
    """

    def emit(context: Any, build: Any, _: Any, values: Any) -> Any:
        left, right, then, parts, entries, out, stride = values

        def function(name: str, result: Any, *arguments: Any) -> Any:
            return cgutils.get_or_insert_function(build.module, ir.FunctionType(result, arguments), f"llvm.{name}")

        def read(address: Any, kind: Any) -> Any:
            return build.load(build.inttoptr(address, kind.as_pointer()), align=1)

        def add_to(total: Any, more: Any) -> None:
            build.store(build.add(build.load(total), more), total)

        multiply = function("x86.avx2.pmadd.ub.sw", _SHORTS, _BYTES, _BYTES)
        widen = function("x86.avx2.pmadd.wd", _INTS, _SHORTS, _SHORTS)
        add_up = function("vector.reduce.add.v8i32", _INT, _INTS)
        row = build.mul(parts, entries)
        rows = [build.add(left, build.mul(row, _LONG(r))) for r in range(_ROWS)]
        columns = [right, build.add(right, then)]
        pairs = [(r, c) for r in range(_ROWS) for c in range(2)]
        totals = {pair: cgutils.alloca_once_value(build, ir.Constant(_INTS, [0] * 8)) for pair in pairs}
        sums = {pair: cgutils.alloca_once(build, _SHORTS) for pair in pairs}
        with cgutils.for_range(build, parts) as part:
            mine = [build.add(own, build.mul(part.index, entries)) for own in rows]
            begin = build.mul(part.index, build.add(entries, _LONG(_STARTS)))
            theirs = [build.add(column, begin) for column in columns]
            starts = [read(address, _SHORTS) for address in theirs]
            for r, c in pairs:
                build.store(starts[c], sums[r, c])
            with cgutils.for_range(build, build.udiv(entries, _LONG(_UNIT))) as unit:
                at = build.mul(unit.index, _LONG(_UNIT))
                for step in range(0, _UNIT, 32):
                    ours = [read(build.add(build.add(own, at), _LONG(step)), _BYTES) for own in mine]
                    shared = [read(build.add(build.add(own, at), _LONG(step + _STARTS)), _BYTES) for own in theirs]
                    for r, c in pairs:
                        add_to(sums[r, c], build.call(multiply, [ours[r], shared[c]]))
            for pair in pairs:
                add_to(totals[pair], build.call(widen, [build.load(sums[pair]), ir.Constant(_SHORTS, [1] * 16)]))
        second = build.select(build.icmp_signed("==", then, _LONG(0)), _LONG(0), _LONG(4))
        for r, c in pairs:
            to = build.add(out, build.mul(stride, _LONG(r)))
            to = build.inttoptr(build.add(to, second) if c else to, _INT.as_pointer())
            build.store(build.call(add_up, [build.load(totals[r, c])]), to)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), emit


@njit(nogil=True, cache=True)
def _products(left: Array, right: Array, out: Array, parts: int, entries: int, lo: int, hi: int) -> None:
    """out[i, j] = ⟨left_i, right_j⟩ for rows lo..hi; out has as many rows as make the last four whole."""
    stride, step, row = out.strides[0], right.strides[0], parts * entries
    held = max(1, _HELD // (_ROWS * row)) * _ROWS
    mine = np.zeros((held, parts, entries), np.uint8)
    for j0 in range(0, right.shape[0], _COLUMNS):
        for i0 in range(lo, hi, held):
            rows = min(held, hi - i0)
            for r in range(rows):
                for p in range(parts):
                    begin = p * (entries + _STARTS) + _STARTS
                    for c in range(entries):
                        mine[r, p, c] = left[i0 + r, begin + c] + 64
            first, column, to = mine.ctypes.data, right[j0:].ctypes.data, out[i0, j0:].ctypes.data
            size = min(_COLUMNS, right.shape[0] - j0)
            for j in range(0, size, 2):
                then = step if j + 1 < size else 0
                for r in range(0, rows, _ROWS):
                    at = to + r * stride + 4 * j
                    _four_by_two(first + r * row, column + j * step, then, parts, entries, at, stride)  # type: ignore[call-arg]


def products(left: Tensor, right: Tensor, d: int, out: Tensor) -> Tensor:
    """⟨q_i, q_j⟩ of packed rows (a, ·), (b, ·) of d entries → out (a, b) int32, which has up to 3 rows to spare."""
    x, y, z = left.numpy(), right.numpy(), out.numpy()
    parts, entries = layout(d)
    in_threads(lambda lo, hi: _products(x, y, z, parts, entries, lo, hi), x.shape[0], 16)
    return out[: x.shape[0]]


@njit(nogil=True, cache=True, fastmath=REORDER)
def _pack(
    x: Array, norm: Array, common: Array, parts: int, entries: int, out: Array, facts: Array, lo: int, hi: int
) -> None:
    d = x.shape[1]
    rest, q = np.zeros(parts * entries), np.zeros(parts * entries, np.int8)
    for i in range(lo, hi):
        share, inverse = 0.0, 1 / norm[i]
        for c in range(d):
            share += np.float64(x[i, c]) * common[c]
        share *= inverse
        largest, lane_norm2 = 1e-30, 0.0
        for c in range(d):
            rest[c] = np.float64(x[i, c]) * inverse - share * common[c]
            largest = max(largest, abs(rest[c]))
        for p in range(parts):
            squares = np.zeros(32)
            for begin in range(p * entries, (p + 1) * entries, 32):
                for c in range(32):
                    squares[c] += rest[begin + c] * rest[begin + c]
            for lane in range(16):
                lane_norm2 = max(lane_norm2, squares[2 * lane] + squares[2 * lane + 1])
        step = min(LEVELS / largest, _LANE_NORM / np.sqrt(lane_norm2 + 1e-60))
        unit, error = 1 / step, 0.0
        for c in range(d):
            whole = np.rint(rest[c] * step)
            q[c] = np.int8(whole)
            gap = rest[c] - whole * unit
            error += gap * gap
        facts[i, 0], facts[i, 1], facts[i, 2] = share, step, np.sqrt(error)
        for p in range(parts):
            row, mine = out[i, p * (entries + _STARTS) :], q[p * entries : (p + 1) * entries]
            starts = np.zeros(32, np.int32)
            for begin in range(0, entries, 32):
                for c in range(32):
                    starts[c] += mine[begin + c]
            for lane in range(16):
                start = -64 * (starts[2 * lane] + starts[2 * lane + 1])
                row[2 * lane], row[2 * lane + 1] = np.int8(start & 255), np.int8(start >> 8 & 255)
            row[_STARTS : _STARTS + entries] = mine


def pack(x: Tensor, norm: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x (m, d) float32 of these norms (m,), none zero → packed rows, int8, and (m, 3) float64: c, steps, δ.

    x_i / norm_i = c_i·common + q_i / steps_i but for an error of norm δ_i. common (d,) float64, norm 1 or 0.
    """
    parts, entries = layout(x.shape[1])
    out = torch.empty(x.shape[0], parts * (entries + _STARTS), dtype=torch.int8)
    facts = torch.empty(x.shape[0], 3, dtype=torch.float64)
    rows, norms, direction, packed, row_facts = (t.numpy() for t in (x, norm, common, out, facts))

    def work(lo: int, hi: int) -> None:
        _pack(rows, norms, direction, parts, entries, packed, row_facts, lo, hi)

    in_threads(work, x.shape[0], 64)
    return out, facts
