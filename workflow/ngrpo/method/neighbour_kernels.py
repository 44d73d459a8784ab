"""The search's inner loops on a CPU, compiled by numba: what torch has no fast operation for.

1. `keep_smallest`: a block's lower bounds, formed on the fly and merged into both sides' smallest so far. Bounds are
   compared with the largest one kept in runs of `RUN` that vectorise; only runs with a hit are looked at singly.
2. `manhattan`: sums of absolute differences, eight at a time in registers.
3. `pair_sums`: float64 sums over pairs of rows.

Threads are Python's, each with its own rows of the result (numba's own pools don't survive forks, which Ray and data
loaders do). All kernels release the interpreter lock; each has its counterpart in torch for other devices.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

RUN = 256
_REORDER = {"reassoc", "contract", "nsz"}  # sums may be split over vector lanes; the bounds allow for any order


def _in_threads(work: Callable[[int, int], None], size: int, least: int) -> None:
    """Run work(lo, hi) over [0, size) on torch's number of threads, pieces being multiples of 4 and ≥ least."""
    threads = max(1, min(torch.get_num_threads(), size // least))
    if threads == 1:
        work(0, size)
        return
    cuts = [size * t // threads // 4 * 4 for t in range(threads)] + [size]
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(work, lo, hi) for lo, hi in pairwise(cuts)]:
            job.result()


@njit(nogil=True, cache=True)
def _insert(ids, bounds, place, bound):
    """Put a candidate into a row that is sorted by bound, dropping the last."""
    at = bounds.shape[0] - 1
    while at > 0 and bounds[at - 1] > bound:
        bounds[at] = bounds[at - 1]
        ids[at] = ids[at - 1]
        at -= 1
    bounds[at] = bound
    ids[at] = place


@njit(nogil=True, cache=True)
def _hits(s, base_i, slope_i, base, slope, epsilon, eta, limit):
    """How many of a run's bounds are below their limits."""
    hits = 0
    for c in range(s.shape[0]):
        t = np.float64(s[c])
        hits += base_i + base[c] - slope_i * slope[c] * (t + eta * abs(t) + epsilon) < limit[c]
    return hits


@njit(nogil=True, cache=True)
def _rows(similarity, lo, hi, who, j0, once, base, slope, epsilon, eta, ids, bounds):
    """Merge the block into its rows lo..hi. base, slope: of all places."""
    width, last = similarity.shape[1], ids.shape[1] - 1
    limit = np.empty(RUN)
    for r in range(lo, hi):
        i = who[r]
        limit[:] = bounds[r, last]
        for a in range(max(0, i + 1 - j0) if once else 0, width, RUN):
            b = min(a + RUN, width)
            s, base_j, slope_j = similarity[r, a:b], base[j0 + a : j0 + b], slope[j0 + a : j0 + b]
            if _hits(s, base[i], slope[i], base_j, slope_j, epsilon, eta, limit):
                for c in range(b - a):
                    t = np.float64(s[c])
                    bound = base[i] + base_j[c] - slope[i] * slope_j[c] * (t + eta * abs(t) + epsilon)
                    if bound < bounds[r, last] and j0 + a + c != i:
                        _insert(ids[r], bounds[r], j0 + a + c, bound)
                limit[:] = bounds[r, last]


@njit(nogil=True, cache=True)
def _columns(similarity, lo, hi, who, j0, base, slope, epsilon, eta, ids, bounds):
    """Merge the block into its columns lo..hi, for pairs whose row's place is before the column's."""
    last = ids.shape[1] - 1
    limit = bounds[:, last].copy()
    for a in range(lo, hi, RUN):
        b = min(a + RUN, hi)
        for r in range(similarity.shape[0]):
            i = who[r]
            first = max(a, i + 1 - j0)
            if first >= b:
                continue
            s, base_j, slope_j = similarity[r, first:b], base[j0 + first : j0 + b], slope[j0 + first : j0 + b]
            if _hits(s, base[i], slope[i], base_j, slope_j, epsilon, eta, limit[first:b]):
                for c in range(b - first):
                    t = np.float64(s[c])
                    bound = base[i] + base_j[c] - slope[i] * slope_j[c] * (t + eta * abs(t) + epsilon)
                    if bound < limit[first + c]:
                        _insert(ids[first + c], bounds[first + c], i, bound)
                        limit[first + c] = bounds[first + c, last]


def keep_smallest(
    similarity: Tensor,
    who: Tensor,
    j0: int,
    base: Tensor,
    slope: Tensor,
    epsilon: float,
    eta: float,
    row_side: tuple[Tensor, Tensor],
    column_side: tuple[Tensor, Tensor] | None,
) -> None:
    """Merge bounds base_i + base_j − slope_i slope_j (s + η|s| + ε) of a block into the smallest so far, in place.

    similarity (a, b) float32: s. who (a,) int64: places of its rows; its columns are places j0 to j0 + b. base, slope
    (n,) float64. row_side, column_side: (places (·, w) int64, bounds (·, w) float64 sorted). With a column_side each
    unordered pair is used once, for both; without, each row meets every column but itself.
    """
    s, places, base_, slope_ = similarity.numpy(), who.numpy(), base.numpy(), slope.numpy()
    row_ids, row_bounds = (t.numpy() for t in row_side)
    once = column_side is not None

    def rows(lo: int, hi: int) -> None:
        _rows(s, lo, hi, places, j0, once, base_, slope_, epsilon, eta, row_ids, row_bounds)

    _in_threads(rows, s.shape[0], 64)
    if column_side is not None:
        column_ids, column_bounds = (t.numpy() for t in column_side)

        def columns(lo: int, hi: int) -> None:
            _columns(s, lo, hi, places, j0, base_, slope_, epsilon, eta, column_ids, column_bounds)

        _in_threads(columns, s.shape[1], 64)


@njit(nogil=True, cache=True, fastmath=_REORDER)
def _manhattan(x, y, out, lo, hi):
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
    _in_threads(lambda lo, hi: _manhattan(x, y, z, lo, hi), x.shape[0], 16)
    return out


@njit(nogil=True, cache=True, fastmath=_REORDER)
def _pair_sums(x, i, y, j, metric, out, lo, hi):
    for p in range(lo, hi):
        u, v = x[i[p]], y[j[p]]
        first, second = 0.0, 0.0
        if metric == 0:
            for c in range(u.shape[0]):
                first += np.float64(u[c]) * np.float64(v[c])
                second += np.float64(v[c]) * np.float64(v[c])
        elif metric == 1:
            for c in range(u.shape[0]):
                gap = np.float64(u[c]) - np.float64(v[c])
                first += gap * gap
        else:
            for c in range(u.shape[0]):
                first += abs(np.float64(u[c]) - np.float64(v[c]))
        out[p, 0] = first
        out[p, 1] = second


def pair_sums(left: Tensor, i: Tensor, right: Tensor, j: Tensor, metric: str) -> Tensor:
    """Float64 sums over pairs (left[i], right[j]), i, j (p,) int64, of float32 rows → (p, 2).

    cosine: ⟨x, y⟩ and ⟨y, y⟩; l2: Σ(x − y)² and 0; l1: Σ|x − y| and 0.
    """
    out = torch.empty(i.numel(), 2, dtype=torch.float64)
    x, y, at_x, at_y, z = left.numpy(), right.numpy(), i.numpy(), j.numpy(), out.numpy()
    code = ("cosine", "l2", "l1").index(metric)
    _in_threads(lambda lo, hi: _pair_sums(x, at_x, y, at_y, code, z, lo, hi), i.numel(), 256)
    return out
