"""Exact k nearest rows, blocked: a bounded filter over all pairs, float64 on the few that it can't rule out.

1. Each unordered pair of rows is filtered once, for both its rows (filters.py).
2. Where a pair's lower bound reaches the farthest neighbor that a row holds so far, it is measured in float64 by the
   direct formula, and kept in the order of (distance, id).

So every pair is either ruled out by a proven bound or measured: the result doesn't depend on the filter's precision,
only the time does. Ties are equal float64 values; distances that differ by less than float64's rounding (about 1e-15
of the larger term) may be ordered either way. The cosine is compared as g|g|/n_j, g = ⟨x_i, x_j⟩: one division and no
root, so that parallel rows with small whole entries tie exactly.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ngrpo.method.knn import kernels
from ngrpo.method.knn.filters import AngleFilter, Filter, ManhattanFilter, PackedFilter, Rows, lower_bound

_PAIRS = 4096  # pairs measured at once on a GPU


class Nearest(NamedTuple):
    """The nearest so far, in places of `rows.index`: one side of a block."""

    ids: Tensor  # (q, w) int64, in order of (distance, id)
    keys: Tensor  # (q, w) float64, what orders them
    values: Tensor  # (q, w) float64: cosine −⟨u_i, u_j⟩, L2 the squared distance, L1 the distance
    limits: Tensor  # (q,) float64, the value that a pair's lower bound must not exceed

    def part(self, a: int, b: int) -> "Nearest":
        """Rows a to b, as views."""
        return Nearest(*(t[a:b] for t in self))


class BlockSizes(NamedTuple):
    """Sizes that keep a search within its memory."""

    panel: int  # rows held as the left operand
    tile: int  # rows of the right operand
    strip: int  # rows of the panel that meet a tile at once


def block_sizes(d: int, memory: int, block: int | None) -> BlockSizes:
    """Sizes for rows of d entries within about `memory` bytes; block sets all of them outright."""
    if block is not None:
        return BlockSizes(block, block, block)
    panel = max(64, min(8192, memory // 2 // (8 * d)))
    tile = max(64, min(1024, memory // 4 // (16 * d)))
    return BlockSizes(panel, tile, max(64, min(2048, memory // 4 // (48 * tile))))


def search(rows: Rows, queries: Tensor | None, w: int, metric: str, sizes: BlockSizes) -> Nearest:
    """The w exact nearest others of each query (places in rows.index; None: of every row). w < len(rows)."""
    return _pass(_choose_filter(rows, w, metric, sizes), queries, w, metric, sizes)[0]


def narrow_filters() -> list[tuple[Callable[[Rows, str], Filter], float]]:
    """The filters in narrow numbers that this processor has instructions for, fastest first.

    With each the share of measured pairs above which the next one is faster: a measured pair costs about 30 times a
    filtered one in float32.
    """
    int8 = torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()
    bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    avx2 = torch.cpu._is_avx2_supported()
    known: list[tuple[bool, Callable[[Rows, str], Filter], float]] = [
        (int8, partial(AngleFilter, dtype=torch.int8), 0.02),
        (bfloat16, partial(AngleFilter, dtype=torch.bfloat16), 0.05),
        (avx2 and not int8, PackedFilter, 0.018),
    ]
    return [(make, most) for has, make, most in known if has]


def _choose_filter(rows: Rows, w: int, metric: str, sizes: BlockSizes) -> Filter:
    """The fastest filter that leaves few pairs to measure, by a sample of the rows."""
    if metric == "l1":
        return ManhattanFilter(rows, metric)
    n = len(rows)
    if n >= 4096 and rows.E.device.type == "cpu":
        sample = torch.arange(0, n, n // 64)
        for make, most in narrow_filters():
            narrow = make(rows, metric)
            if _pass(narrow, sample, w, metric, sizes)[1] <= most * n * sample.numel():
                return narrow
    return AngleFilter(rows, metric, torch.float32)


def _pass(chosen: Filter, queries: Tensor | None, w: int, metric: str, sizes: BlockSizes) -> tuple[Nearest, int]:
    """Filter and measure all pairs of the queries: what is nearest, and how many pairs the rows' side measured."""
    rows = chosen.rows
    n, device = len(rows), rows.E.device
    q = n if queries is None else queries.numel()
    keys = torch.full((q, w), torch.inf, dtype=torch.float64, device=device)
    nearest = Nearest(torch.full((q, w), -1, device=device), keys, keys.clone(), keys[:, 0].clone())
    place = torch.arange(n, device=device)
    offer = kernels.offer if device.type == "cpu" else offer_with_torch
    measured = 0
    for p0 in range(0, q, sizes.panel):
        p1 = min(p0 + sizes.panel, q)
        at = slice(p0, p1) if queries is None else queries[p0:p1]
        panel, x = chosen.operand(at), rows.block(at)
        for j0 in range(p0 if queries is None else 0, n, sizes.tile):
            j1 = min(j0 + sizes.tile, n)
            tile, y = chosen.operand(slice(j0, j1)), rows.block(slice(j0, j1))
            last = min(p1, j1) if queries is None else p1  # pairs below the diagonal are another block's
            for i0 in range(p0, last, sizes.strip):
                i1 = min(i0 + sizes.strip, last)
                inside = slice(i0 - p0, i1 - p0)
                who = place[i0:i1] if queries is None else queries[i0:i1]
                s = chosen.similarity(panel[inside], tile)
                column_side = nearest.part(j0, j1) if queries is None else None
                row_side = nearest.part(i0, i1)
                measured += offer(s, who, j0, x[inside], y, metric, rows.norm2, chosen.bound, row_side, column_side)
    return nearest, measured


def offer_with_torch(
    s: Tensor,
    who: Tensor,
    j0: int,
    x: Tensor,
    y: Tensor,
    metric: str,
    norm2: Tensor,
    bound: kernels.Bound,
    row_side: Nearest,
    column_side: Nearest | None,
) -> int:
    """`kernels.offer` in torch's operations, for other devices."""
    columns = torch.arange(j0, j0 + s.shape[1], device=s.device)
    low = lower_bound(s, bound, who, columns)
    seen = who[:, None] == columns if column_side is None else who[:, None] >= columns
    low.masked_fill_(seen, torch.inf)
    if column_side is not None:
        _meet(low.T.clone(), columns, y, who, x, metric, norm2, column_side)
    return _meet(low, who, x, columns, y, metric, norm2, row_side)


def _meet(low: Tensor, i: Tensor, x: Tensor, j: Tensor, y: Tensor, metric: str, norm2: Tensor, side: Nearest) -> int:
    """Measure the pairs that bounds low (a, b) don't rule out for places i (a,), keep the nearest; how many there were.

    Rows without a limit yet measure their most promising pairs first, so that the others can be ruled out.
    """
    measured = 0
    for first in (True, False):
        if first:
            best, at = low.topk(min(side.ids.shape[1], low.shape[1]), dim=1, largest=False)
            wanted = torch.zeros_like(low, dtype=torch.bool).scatter_(1, at, torch.isfinite(best))
            wanted &= torch.isinf(side.limits)[:, None]
        else:
            wanted = (low <= side.limits[:, None]) & torch.isfinite(low)
        a, b = torch.nonzero(wanted, as_tuple=True)
        low[wanted] = torch.inf
        total = torch.cat(
            [_measured(x[u], y[v], metric) for u, v in zip(a.split(_PAIRS), b.split(_PAIRS), strict=True)]
        )
        key = value = total
        if metric == "cosine":
            key = -total * total.abs() / norm2[j[b]]
            value = -total / norm2[i[a]].sqrt() / norm2[j[b]].sqrt()
        _merge(side, a, j[b], key, value)
        farthest = side.values[:, -1]
        side.limits.copy_(farthest + 1e-12 if metric == "cosine" else farthest * (1 + 1e-12))
        measured += a.numel()
    return measured


def _measured(u: Tensor, v: Tensor, metric: str) -> Tensor:
    """⟨u, v⟩, Σ(u − v)² or Σ|u − v| of float32 row pairs (p, d), in float64 (p,)."""
    u, v = u.double(), v.double()
    if metric == "cosine":
        return (u * v).sum(1)
    return (u - v).square().sum(1) if metric == "l2" else (u - v).abs().sum(1)


def _merge(side: Nearest, owner: Tensor, ids: Tensor, key: Tensor, value: Tensor) -> None:
    """Add candidates (p,) of rows `owner`, and keep each row's first by (key, id), in place."""
    held = torch.nonzero(side.ids >= 0, as_tuple=True)
    owner, ids = torch.cat([owner, held[0]]), torch.cat([ids, side.ids[held]])
    key, value = torch.cat([key, side.keys[held]]), torch.cat([value, side.values[held]])
    order = ids.argsort(stable=True)
    order = order[key[order].argsort(stable=True)]
    order = order[owner[order].argsort(stable=True)]
    owner = owner[order]
    rank = torch.arange(owner.numel(), device=owner.device) - torch.searchsorted(owner, owner)
    keep = rank < side.ids.shape[1]
    to = owner[keep], rank[keep]
    side.ids[to], side.keys[to], side.values[to] = ids[order][keep], key[order][keep], value[order][keep]
