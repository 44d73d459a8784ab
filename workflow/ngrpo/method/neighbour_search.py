"""Exact k nearest rows, blocked: a bounded filter over all pairs, then float64 on the few that can win.

1. Each unordered pair of rows is filtered once (neighbour_filters). Every row keeps its `width` smallest lower bounds;
   whatever it turned away can't be nearer than the largest one kept, its *floor*.
2. Kept pairs are measured in float64 by the direct formula and sorted by (distance, id). A row is certain when its
   last neighbour is nearer than its floor.
3. The other rows (clusters tighter than the filter can see) get a second pass that measures every pair which the
   float32 filter can't rule out, without a limit on how many there are.

So the result doesn't depend on the filter's precision; only the time does. Ties are equal float64 values.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ngrpo.method import neighbour_kernels as kernels
from ngrpo.method.neighbour_filters import AngleFilter, Filter, ManhattanFilter, Rows, exact_values, lower_bound

SPARE = 13  # candidates kept beyond those asked for
_SETTLED = 8192  # rows whose candidates are measured at once
_LEFT = 256  # rows of the second pass at once


class Found(NamedTuple):
    """A search's result, in places of `rows.index`."""

    nearest: Tensor  # (q, m) int64, in order of (distance, id)
    values: Tensor  # (q, m) float64, see `exact_values`
    beyond: Tensor  # (q,) float64: no row outside `nearest` is nearer than this


class Plan(NamedTuple):
    """Sizes that keep a search within its memory."""

    panel: int  # rows held as the left operand
    tile: int  # rows of the right operand
    strip: int  # rows of the panel that meet a tile at once


def plan(d: int, memory: int, block: int | None) -> Plan:
    """Sizes for rows of d entries within about `memory` bytes; block sets all of them outright."""
    if block is not None:
        return Plan(block, block, block)
    panel = max(64, min(8192, memory // 2 // (4 * d)))
    tile = max(64, min(1024, memory // 4 // (16 * d)))
    return Plan(panel, tile, max(64, min(2048, memory // 4 // (48 * tile))))


def search(rows: Rows, queries: Tensor | None, m: int, metric: str, sizes: Plan) -> Found:
    """The m exact nearest others of each query (places in rows.index; None: of every row)."""
    chosen = _choose_filter(rows, m, metric, sizes)
    found, certain = _candidates(chosen, queries, m, metric, sizes)
    left = torch.nonzero(~certain).flatten()
    if left.numel():
        who = left if queries is None else queries[left]
        strict = chosen if chosen.dtype == torch.float32 else AngleFilter(rows, metric, torch.float32)
        for part in range(0, left.numel(), _LEFT):
            settled = _exhaust(strict, who[part : part + _LEFT], found.values[left[part : part + _LEFT]], metric, sizes)
            for mine, theirs in zip(found, settled, strict=True):
                mine[left[part : part + _LEFT]] = theirs
    return found


def _choose_filter(rows: Rows, m: int, metric: str, sizes: Plan) -> Filter:
    """bfloat16 where the processor multiplies it fast and a sample shows that it separates; else float32."""
    if metric == "l1":
        return ManhattanFilter(rows, metric)
    n = len(rows)
    if n >= 4096 and rows.E.device.type == "cpu" and _fast_bfloat16():
        coarse = AngleFilter(rows, metric, torch.bfloat16)
        sample = torch.arange(0, n, n // 128)
        if _candidates(coarse, sample, m, metric, sizes)[1].double().mean() >= 0.8:
            return coarse
    return AngleFilter(rows, metric, torch.float32)


def _fast_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16 products."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _filter_pass(chosen: Filter, queries: Tensor | None, width: int, sizes: Plan) -> tuple[Tensor, Tensor]:
    """Each query's `width` smallest lower bounds: places (q, width) int64 (−1: none) and bounds (q, width) float64."""
    rows = chosen.rows
    n, device = len(rows), rows.E.device
    q = n if queries is None else queries.numel()
    ids = torch.full((q, width), -1, dtype=torch.int64, device=device)
    bounds = torch.full((q, width), torch.inf, dtype=torch.float64, device=device)
    place = torch.arange(n, device=device)
    for p0 in range(0, q, sizes.panel):
        p1 = min(p0 + sizes.panel, q)
        panel = chosen.operand(slice(p0, p1) if queries is None else queries[p0:p1])
        for j0 in range(p0 if queries is None else 0, n, sizes.tile):
            j1 = min(j0 + sizes.tile, n)
            right = chosen.operand(slice(j0, j1))
            last = min(p1, j1) if queries is None else p1  # pairs below the diagonal are another block's
            for i0 in range(p0, last, sizes.strip):
                i1 = min(i0 + sizes.strip, last)
                who = place[i0:i1] if queries is None else queries[i0:i1]
                s = chosen.similarity(panel[i0 - p0 : i1 - p0], right)
                row_side = ids[i0:i1], bounds[i0:i1]
                column_side = (ids[j0:j1], bounds[j0:j1]) if queries is None else None
                keep = kernels.keep_smallest if device.type == "cpu" else _keep_smallest
                keep(s, who, j0, chosen.base, chosen.slope, chosen.epsilon, chosen.eta, row_side, column_side)
    return ids, bounds


def _keep_smallest(
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
    """`kernels.keep_smallest` in torch's operations, for other devices."""
    columns = torch.arange(j0, j0 + similarity.shape[1], device=similarity.device)
    bound = lower_bound(similarity, base, slope, epsilon, eta, who, columns)
    seen = who[:, None] == columns if column_side is None else who[:, None] >= columns
    bound.masked_fill_(seen, torch.inf)
    _merge(*row_side, bound, columns)
    if column_side is not None:
        _merge(*column_side, bound.T, who)


def _merge(ids: Tensor, bounds: Tensor, new: Tensor, places: Tensor) -> None:
    """Merge new bounds (a, b) of the places (b,) into the smallest so far, in place."""
    width = ids.shape[1]
    value, at = new.topk(min(width, new.shape[1]), dim=1, largest=False)
    both, order = torch.cat([bounds, value], 1).topk(width, dim=1, largest=False)
    ids.copy_(torch.cat([ids, places[at]], 1).gather(1, order))
    bounds.copy_(both)


def _first(owner: Tensor, j: Tensor, key: Tensor, value: Tensor, q: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of candidates j (p,) of owners (p,), each owner's first m by (key, j): places, keys, values (q, m)."""
    order = j.argsort(stable=True)
    order = order[key[order].argsort(stable=True)]
    order = order[owner[order].argsort(stable=True)]
    owner, j, key, value = owner[order], j[order], key[order], value[order]
    rank = torch.arange(owner.numel(), device=owner.device) - torch.searchsorted(owner, owner)
    keep = rank < m
    owner, rank = owner[keep], rank[keep]
    places = torch.full((q, m), -1, dtype=torch.int64, device=j.device)
    keys = torch.full((q, m), torch.inf, dtype=torch.float64, device=j.device)
    values = keys.clone()
    places[owner, rank], keys[owner, rank], values[owner, rank] = j[keep], key[keep], value[keep]
    return places, keys, values


def _slack(value: Tensor, metric: str) -> Tensor:
    """A value raised by more than float64's rounding of it."""
    return value + 1e-12 if metric == "cosine" else value * (1 + 1e-12)


def _candidates(chosen: Filter, queries: Tensor | None, m: int, metric: str, sizes: Plan) -> tuple[Found, Tensor]:
    """Filter, then measure what was kept: the result, and which rows are certain (q,)."""
    n = len(chosen.rows)
    width = min(m + SPARE, n - 1)
    ids, bounds = _filter_pass(chosen, queries, width, sizes)
    floor = bounds[:, -1] if width < n - 1 else torch.full_like(bounds[:, -1], torch.inf)
    parts = []
    for a in range(0, ids.shape[0], _SETTLED):
        part = ids[a : a + _SETTLED]
        q = part.shape[0]
        owner = torch.arange(q, device=ids.device).repeat_interleave(width)
        i = owner + a if queries is None else queries[owner + a]
        key, value = exact_values(chosen.rows, i, part.flatten(), metric)
        places, _, values = _first(owner, part.flatten(), key, value, q, min(m + 1, width))
        beyond = floor[a : a + q] if width == m else torch.minimum(floor[a : a + q], values[:, m])
        parts.append((places[:, :m], values[:, :m], beyond))
    found = Found(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return found, _slack(found.values[:, -1], metric) < floor


def _exhaust(strict: Filter, queries: Tensor, known: Tensor, metric: str, sizes: Plan) -> Found:
    """The m nearest of a few queries (q,), measuring every pair that the filter can't rule out.

    known (q, m) float64: values of some m others of each query, so that the m nearest can't be farther.
    """
    rows = strict.rows
    n, (q, m) = len(rows), known.shape
    more = min(m + 1, n - 1)
    operand = strict.operand(queries)
    limit = _slack(known[:, -1], metric)
    outside = torch.full_like(limit, torch.inf)
    places = queries.new_full((q, more), -1)
    keys = torch.full((q, more), torch.inf, dtype=torch.float64, device=queries.device)
    values = keys.clone()
    for j0 in range(0, n, sizes.tile):
        columns = torch.arange(j0, min(j0 + sizes.tile, n), device=queries.device)
        right = strict.operand(slice(j0, j0 + columns.numel()))
        bound = strict.lower_bound(strict.similarity(operand, right), queries, columns)
        bound.masked_fill_(queries[:, None] == columns, torch.inf)
        possible = bound <= limit[:, None]
        outside = torch.minimum(outside, bound.masked_fill(possible, torch.inf).amin(1))
        owner, at = torch.nonzero(possible, as_tuple=True)
        key, value = exact_values(rows, queries[owner], columns[at], metric)
        held = torch.nonzero(places >= 0, as_tuple=True)
        places, keys, values = _first(
            torch.cat([owner, held[0]]),
            torch.cat([columns[at], places[held]]),
            torch.cat([key, keys[held]]),
            torch.cat([value, values[held]]),
            q,
            more,
        )
        limit = torch.minimum(limit, _slack(values[:, m - 1], metric))
    beyond = outside if more == m else torch.minimum(outside, values[:, m])
    return Found(places[:, :m], values[:, :m], beyond)
