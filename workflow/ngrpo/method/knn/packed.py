"""Products of rows of small whole numbers, by the 8-bit instructions that every x86 processor since 2013 has (AVX2).

One instruction multiplies 32 pairs of bytes and adds them in twos to 16-bit sums. For it never to overflow:

1. entries are whole numbers q from −63 to 63, and the left row's are taken as q + 64, since it wants them unsigned: two
   products of at most 127·63 fit in 16 bits;
2. a 16-bit sum starts at −64 Σ q over the right row's entries that it will meet, kept before every 128 of them: what is
   left after 128 entries is a sum of 8 products of at most 63·63, which fits, whatever wrapped on the way;
3. these sums are then added up in 32 bits: exact up to d = 500,000.

A packed row is so: for every 128 entries 16 starts in 16 bits, then the entries in 8; the last are zeros.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from ngrpo.method.knn.kernels import Array, in_threads

LEVELS = 63
_ENTRIES, _STARTS = 128, 32  # a block's, in bytes
_ROWS, _COLUMNS = 4, 64  # left rows that share a load of the right one; right rows that stay in the processor's cache
_LONG, _INT = ir.IntType(64), ir.IntType(32)
_BYTES, _SHORTS, _INTS = (ir.VectorType(ir.IntType(bits), 256 // bits) for bits in (8, 16, 32))


def width(d: int) -> int:
    """Bytes of a packed row of d entries."""
    return -(-d // _ENTRIES) * (_ENTRIES + _STARTS)


@intrinsic  # type: ignore[untyped-decorator]
def _four(_: Any, left: Any, right: Any, blocks: Any, out: Any, stride: Any) -> Any:
    """⟨left row, right row⟩ of 4 left rows, int32, to out, out + stride, …; addresses and sizes in bytes.

    left: 4 rows of `blocks`·128 unsigned entries q + 64. right: a packed row.
    """

    def emit(context: Any, build: Any, _: Any, values: Any) -> Any:
        left, right, blocks, out, stride = values

        def function(name: str, result: Any, *arguments: Any) -> Any:
            return cgutils.get_or_insert_function(build.module, ir.FunctionType(result, arguments), f"llvm.{name}")

        def read(address: Any, kind: Any) -> Any:
            return build.load(build.inttoptr(address, kind.as_pointer()), align=1)

        multiply = function("x86.avx2.pmadd.ub.sw", _SHORTS, _BYTES, _BYTES)
        widen = function("x86.avx2.pmadd.wd", _INTS, _SHORTS, _SHORTS)
        add_up = function("vector.reduce.add.v8i32", _INT, _INTS)
        row = build.mul(blocks, _LONG(_ENTRIES))
        rows = [build.add(left, build.mul(row, _LONG(r))) for r in range(_ROWS)]
        totals = [cgutils.alloca_once_value(build, ir.Constant(_INTS, [0] * 8)) for _ in rows]
        with cgutils.for_range(build, blocks) as loop:
            begin = build.mul(loop.index, _LONG(_ENTRIES))
            block = build.add(right, build.mul(loop.index, _LONG(_ENTRIES + _STARTS)))
            sums = [read(block, _SHORTS)] * _ROWS
            for at in range(0, _ENTRIES, 32):
                entries = read(build.add(block, _LONG(_STARTS + at)), _BYTES)
                for r in range(_ROWS):
                    mine = read(build.add(rows[r], build.add(begin, _LONG(at))), _BYTES)
                    sums[r] = build.add(sums[r], build.call(multiply, [mine, entries]))
            for total, part in zip(totals, sums, strict=True):
                wide = build.call(widen, [part, ir.Constant(_SHORTS, [1] * 16)])
                build.store(build.add(build.load(total), wide), total)
        for r, total in enumerate(totals):
            to = build.inttoptr(build.add(out, build.mul(stride, _LONG(r))), _INT.as_pointer())
            build.store(build.call(add_up, [build.load(total)]), to)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), emit


@njit(nogil=True, cache=True)
def _products(left: Array, right: Array, out: Array, lo: int, hi: int) -> None:
    """out[i, j] = ⟨left_i, right_j⟩ for rows lo..hi; out has as many rows as make the last four whole."""
    blocks, stride, step = right.shape[1] // (_ENTRIES + _STARTS), out.strides[0], right.strides[0]
    four = np.empty((_ROWS, blocks, _ENTRIES), np.uint8)
    for j0 in range(0, right.shape[0], _COLUMNS):
        for i in range(lo, hi, _ROWS):
            for r in range(min(_ROWS, hi - i)):
                for b in range(blocks):
                    begin = b * (_ENTRIES + _STARTS) + _STARTS
                    for c in range(_ENTRIES):
                        four[r, b, c] = left[i + r, begin + c] + 64
            rows, column, to = four.ctypes.data, right[j0:].ctypes.data, out[i, j0:].ctypes.data
            for j in range(min(_COLUMNS, right.shape[0] - j0)):
                _four(rows, column + j * step, blocks, to + 4 * j, stride)


def products(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """⟨q_i, q_j⟩ of packed rows (a, ·), (b, ·), contiguous → the first a rows of out (≥ a rounded up to fours, b) int32."""
    x, y, z = left.numpy(), right.numpy(), out.numpy()
    in_threads(lambda lo, hi: _products(x, y, z, lo, hi), x.shape[0], 16)
    return out[: x.shape[0]]


@njit(nogil=True, cache=True)
def _pack(x: Array, out: Array, steps: Array, errors: Array, lo: int, hi: int) -> None:
    blocks, d = out.shape[1] // (_ENTRIES + _STARTS), x.shape[1]
    q = np.zeros(blocks * _ENTRIES, np.int8)
    for i in range(lo, hi):
        largest = np.float32(0)
        for c in range(d):
            largest = max(largest, abs(x[i, c]))
        step = LEVELS / np.float64(largest)
        unit, error, norm2 = 1 / step, 0.0, 0.0
        for c in range(d):
            entry = np.float64(x[i, c])
            whole = np.rint(entry * step)
            q[c] = np.int8(whole)
            gap = (entry - whole * unit) * step
            error += gap * gap
            norm2 += (entry * step) * (entry * step)
        steps[i], errors[i] = np.sqrt(norm2), np.sqrt(error / norm2)
        for b in range(blocks):
            row, mine = out[i, b * (_ENTRIES + _STARTS) :], q[b * _ENTRIES :]
            for lane in range(16):
                total = 0
                for c in range(2 * lane, _ENTRIES, 32):
                    total += np.int64(mine[c]) + np.int64(mine[c + 1])
                row[2 * lane], row[2 * lane + 1] = np.int8(-64 * total & 255), np.int8(-64 * total >> 8 & 255)
            for c in range(_ENTRIES):
                row[_STARTS + c] = mine[c]


def pack(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (m, d) float32, none zero → packed (m, width(d)) int8, steps (m,), errors (m,) float64.

    A row is q / steps times its norm, but for an error whose norm, in parts of the row's, is the third.
    """
    out = torch.empty(x.shape[0], width(x.shape[1]), dtype=torch.int8)
    steps, errors = (torch.empty(x.shape[0], dtype=torch.float64) for _ in range(2))
    arrays = [t.numpy() for t in (x, out, steps, errors)]
    in_threads(lambda lo, hi: _pack(*arrays, lo, hi), x.shape[0], 64)
    return out, steps, errors
