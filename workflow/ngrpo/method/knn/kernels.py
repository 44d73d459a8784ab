"""The search's inner loops on a CPU, compiled by numba: what torch has no fast operation for.

1. `offer`: a block's pairs offered to both sides. Lower bounds are formed on the fly and compared with both sides'
   limits in runs of `RUN` that vectorize; in runs with a hit, pairs below a limit are measured in float64 and kept
   where they are near enough.
2. `manhattan`: sums of absolute differences, eight at a time in registers.
3. `squared_norms`: float64, by the same loop that measures pairs.

Threads are Python's, each with its own rows of the result (numba's own pools don't survive forks, which Ray and data
loaders do). All kernels release the interpreter lock; each has its counterpart in torch for other devices.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]  # numba infers the types of what it compiles; annotations are for readers
METRICS = ("cosine", "l2", "l1")
RUN = 32
REORDER = {"reassoc", "contract", "nsz"}  # sums may be split over vector lanes; the bounds allow for any order


class Bound(NamedTuple):
    """What a filter's similarity s says of a pair: filters.py's `Filter`."""

    base: Tensor
    slope: Tensor
    share: Tensor
    epsilon: float
    eta: float


def in_threads(work: Callable[[int, int], None], size: int, least: int) -> None:
    """Run work(lo, hi) over [0, size) on torch's number of threads, pieces being multiples of 4 and ≥ least."""
    threads = max(1, min(torch.get_num_threads(), size // least))
    if threads == 1:
        work(0, size)
        return
    cuts = [size * t // threads // 4 * 4 for t in range(threads)] + [size]
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(work, lo, hi) for lo, hi in pairwise(cuts)]:
            job.result()


@njit(nogil=True, cache=True, fastmath=REORDER)
def _measured(x: Array, i: int, y: Array, j: int, metric: int) -> Any:
    """⟨x_i, y_j⟩, Σ(x_i − y_j)² or Σ|x_i − y_j| of two float32 rows, in float64; the same for (y_j, x_i)."""
    total: Any = 0.0
    if metric == 0:
        for c in range(x.shape[1]):
            total += np.float64(x[i, c]) * np.float64(y[j, c])
    elif metric == 1:
        for c in range(x.shape[1]):
            gap = np.float64(x[i, c]) - np.float64(y[j, c])
            total += gap * gap
    else:
        for c in range(x.shape[1]):
            total += abs(np.float64(x[i, c]) - np.float64(y[j, c]))
    return total


@njit(nogil=True, cache=True)
def _insert(ids: Array, keys: Array, values: Array, row: int, place: int, key: float, value: float) -> None:
    """Put a candidate into a row that is sorted by (key, id), dropping the last; nothing where it comes after all."""
    at = ids.shape[1] - 1
    if keys[row, at] < key or (keys[row, at] == key and ids[row, at] < place):
        return
    while at > 0 and (keys[row, at - 1] > key or (keys[row, at - 1] == key and ids[row, at - 1] > place)):
        ids[row, at], keys[row, at], values[row, at] = ids[row, at - 1], keys[row, at - 1], values[row, at - 1]
        at -= 1
    ids[row, at], keys[row, at], values[row, at] = place, key, value


@njit(nogil=True, cache=True)
def _meet(
    x: Array, i: int, y: Array, j: int, norm2_x: float, norm2_y: float, place: int, metric: int, ids: Array,
    keys: Array, values: Array,
) -> float:  # fmt: skip
    """Measure candidate y_j of x_i and offer it; the value that a better candidate must not exceed afterwards."""
    total, last = _measured(x, i, y, j, metric), ids.shape[1] - 1
    if metric == 0:
        key, value = -total * abs(total) / norm2_y, -total / np.sqrt(norm2_x) / np.sqrt(norm2_y)
        _insert(ids, keys, values, i, place, key, value)
        return values[i, last] + 1e-12
    _insert(ids, keys, values, i, place, total, total)
    return values[i, last] * (1 + 1e-12)


@njit(nogil=True, cache=True)
def _bound(
    s: float, base_i: float, slope_i: float, share_i: float, base_j: float, slope_j: float, share_j: float,
    epsilon: float, eta: float,
) -> Any:  # fmt: skip
    """What no value of a pair lies below."""
    t = np.float64(s)
    return base_i + base_j - share_i * share_j - slope_i * slope_j * (t + eta * abs(t) + epsilon)


@njit(nogil=True, cache=True)
def _rows(
    s: Array, lo: int, hi: int, who: Array, j0: int, once: bool, x: Array, y: Array, metric: int, norm2: Array,
    base: Array, slope: Array, share: Array, epsilon: float, eta: float, theirs: Array, marks: Array, ids: Array,
    keys: Array, values: Array, limits: Array,
) -> int:  # fmt: skip
    """Offer the block's columns to its rows lo..hi; how many pairs were measured. base, slope, norm2: all places'.

    marks (a, runs): set where a pair reaches its column's limit, theirs (b,), so that `_columns` looks there alone.
    """
    width, measured, step = np.uint64(s.shape[1]), 0, np.uint64(RUN)  # unsigned: negative indices don't vectorize
    base_j, slope_j, share_j = (base[j0 : j0 + width], slope[j0 : j0 + width], share[j0 : j0 + width])
    for r in range(lo, hi):
        i, row = who[r], s[r]
        base_i, slope_i, share_i = base[i], slope[i], share[i]
        first = max(0, i + 1 - j0) if once else 0
        for run in range(np.uint64(first // RUN * RUN), width, step):
            stop, mine, hits = min(run + step, width), limits[r], 0
            for c in range(run, stop):
                low = _bound(row[c], base_i, slope_i, share_i, base_j[c], slope_j[c], share_j[c], epsilon, eta)
                hits += low <= max(mine, theirs[c])
            if hits:
                for c in range(max(np.int64(run), first), np.int64(stop)):
                    low = _bound(row[c], base_i, slope_i, share_i, base_j[c], slope_j[c], share_j[c], epsilon, eta)
                    if low <= theirs[c]:
                        marks[r, c // RUN] = True
                    j = j0 + c
                    if low <= limits[r] and j != i:
                        measured += 1
                        limits[r] = _meet(x, r, y, c, norm2[i], norm2[j], j, metric, ids, keys, values)
    return measured


@njit(nogil=True, cache=True)
def _columns(
    s: Array, lo: int, hi: int, who: Array, j0: int, x: Array, y: Array, metric: int, norm2: Array, base: Array,
    slope: Array, share: Array, epsilon: float, eta: float, marks: Array, ids: Array, keys: Array, values: Array,
    limits: Array,
) -> None:  # fmt: skip
    """Offer the block's rows to its columns in the marked runs lo..hi, where the row's place is before the column's."""
    for r in range(s.shape[0]):
        i = who[r]
        for run in range(lo, hi):
            if marks[r, run]:
                for c in range(max(run * RUN, i + 1 - j0), min((run + 1) * RUN, s.shape[1])):
                    j = j0 + c
                    low = _bound(s[r, c], base[i], slope[i], share[i], base[j], slope[j], share[j], epsilon, eta)
                    if low <= limits[c]:
                        limits[c] = _meet(y, c, x, r, norm2[j], norm2[i], i, metric, ids, keys, values)


def offer(
    s: Tensor,
    who: Tensor,
    j0: int,
    x: Tensor,
    y: Tensor,
    metric: str,
    norm2: Tensor,
    bound: Bound,
    row_side: tuple[Tensor, Tensor, Tensor, Tensor],
    column_side: tuple[Tensor, Tensor, Tensor, Tensor] | None,
) -> int:
    """Offer a block's pairs to its rows, and to its columns; how many pairs the rows measured.

    s (a, b): the filter's similarity. who (a,) int64: places of its rows; its columns are places j0 to j0 + b.
    x (a, d), y (b, d) float32: the rows themselves. norm2 (n,) float64. The sides, changed in place: ids (·, w)
    int64, keys and values (·, w) float64, sorted by (key, id), limits (·,) float64. With a column_side each unordered
    pair is used once, for both; without, each row meets every column but itself.
    """
    S, places, X, Y, norms = s.numpy(), who.numpy(), x.numpy(), y.numpy(), norm2.numpy()
    terms: list[Any] = [*(t.numpy() for t in bound[:3]), bound.epsilon, bound.eta]
    code, once = METRICS.index(metric), column_side is not None
    mine = [t.numpy() for t in row_side]
    limits = np.full(S.shape[1], -np.inf) if column_side is None else column_side[3].numpy()
    marks = np.zeros((S.shape[0], -(-S.shape[1] // RUN)), np.bool_)
    measured: list[int] = []
    to_rows, to_columns = cast("Any", _rows), cast("Any", _columns)  # numba knows their types

    def rows(lo: int, hi: int) -> None:
        pairs = to_rows(S, lo, hi, places, j0, once, X, Y, code, norms, *terms, limits, marks, *mine)
        measured.append(pairs)

    in_threads(rows, S.shape[0], 32)
    if column_side is not None:
        theirs = [t.numpy() for t in column_side]

        def columns(lo: int, hi: int) -> None:
            to_columns(S, lo, hi, places, j0, X, Y, code, norms, *terms, marks, *theirs)

        in_threads(columns, marks.shape[1], 1)
    return sum(measured)


@njit(nogil=True, cache=True)
def _squared_norms(x: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        out[i] = _measured(x, i, x, i, 0)


def squared_norms(x: Tensor) -> Tensor:
    """Σ x² of rows (m, d) float32 → (m,) float64; equal rows have equal norms wherever they stand."""
    out = torch.empty(x.shape[0], dtype=torch.float64)
    _squared_norms(x.numpy(), out.numpy())
    return out


@njit(nogil=True, cache=True, fastmath=REORDER)
def _manhattan(x: Array, y: Array, out: Array, lo: int, hi: int) -> None:
    """out[i, j] = −Σ|x_i − y_j| for rows lo..hi; two rows by four columns share their loads."""
    d, b = x.shape[1], y.shape[0]
    zero = np.float32(0)
    whole = b - b % 4
    for j in range(0, whole, 4):
        v0, v1, v2, v3 = y[j], y[j + 1], y[j + 2], y[j + 3]
        for i in range(lo, hi - (hi - lo) % 2, 2):
            u0, u1 = x[i], x[i + 1]
            a00, a01, a02, a03 = zero, zero, zero, zero
            a10, a11, a12, a13 = zero, zero, zero, zero
            for c in range(d):
                p0, p1, q0, q1, q2, q3 = u0[c], u1[c], v0[c], v1[c], v2[c], v3[c]
                a00 += abs(p0 - q0)
                a01 += abs(p0 - q1)
                a02 += abs(p0 - q2)
                a03 += abs(p0 - q3)
                a10 += abs(p1 - q0)
                a11 += abs(p1 - q1)
                a12 += abs(p1 - q2)
                a13 += abs(p1 - q3)
            out[i, j], out[i, j + 1], out[i, j + 2], out[i, j + 3] = -a00, -a01, -a02, -a03
            out[i + 1, j], out[i + 1, j + 1], out[i + 1, j + 2], out[i + 1, j + 3] = -a10, -a11, -a12, -a13
    for i in range(lo, hi):
        odd_row = (hi - lo) % 2 == 1 and i == hi - 1
        for j in range(0 if odd_row else whole, b):
            total = zero
            for c in range(d):
                total += abs(x[i, c] - y[j, c])
            out[i, j] = -total


def manhattan(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """−Σ|x_i − y_j| of rows (a, d), (b, d) float32, contiguous → out (a, b) float32."""
    x, y, z = left.numpy(), right.numpy(), out.numpy()
    in_threads(lambda lo, hi: _manhattan(x, y, z, lo, hi), x.shape[0], 16)
    return out
