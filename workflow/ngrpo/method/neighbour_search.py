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

from ngrpo.method.neighbour_filters import AngleFilter, Filter, ManhattanFilter, Rows, exact_values

SPARE = 13  # candidates kept beyond those asked for
_PAIR_BYTES = 40  # float64 operands' overhead a kept pair: ids, keys, sorting


class Found(NamedTuple):
    """A search's result, in places of `rows.index`."""

    nearest: Tensor  # (q, m) int64, in order of (distance, id)
    values: Tensor  # (q, m) float64, see `exact_values`
    beyond: Tensor  # (q,) float64: no row outside `nearest` is nearer than this


class Plan(NamedTuple):
    """Sizes that keep a search within its memory."""

    panel: int  # rows held as the left operand
    tile: int  # rows of the right operand
    pairs: int  # pairs measured in float64 at once


def plan(d: int, memory: int, block: int | None) -> Plan:
    """Sizes for rows of d entries within `memory` bytes; block sets panel and tile outright."""
    pairs = max(1, min(1 << 16, memory // 4 // (40 * d)))
    if block is not None:
        return Plan(block, block, pairs)
    row = 16 * d  # float32 copy, its scaled copy, the operand, a temporary
    panel = int(max(16, min(8192, memory // 4 // row)))
    tile = int(max(16, min(1024, memory // 4 // (40 * panel))))
    return Plan(panel, tile, pairs)


def search(rows: Rows, queries: Tensor | None, m: int, metric: str, sizes: Plan) -> Found:
    """The m exact nearest others of each query (places in rows.index; None: of every row)."""
    chosen = _choose_filter(rows, m, metric, sizes)
    ids, bounds = _filter_pass(chosen, queries, min(m + SPARE, len(rows) - 1), sizes)
    who = torch.arange(len(rows), device=ids.device) if queries is None else queries
    found, certain = _settle(rows, who, ids, bounds, m, metric, sizes)
    left = torch.nonzero(~certain).flatten()
    if left.numel():
        strict = chosen if chosen.dtype == torch.float32 else AngleFilter(rows, metric, torch.float32, sizes.panel)
        _exhaust(strict, who, left, found, metric, sizes)
    return found


def _choose_filter(rows: Rows, m: int, metric: str, sizes: Plan) -> Filter:
    """bfloat16 where the processor multiplies it fast and a sample shows that it separates; else float32."""
    if metric == "l1":
        return ManhattanFilter(rows)
    n = len(rows)
    if n >= 4096 and rows.E.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        coarse = AngleFilter(rows, metric, torch.bfloat16, sizes.panel)
        sample = torch.arange(0, n, n // 128)
        ids, bounds = _filter_pass(coarse, sample, min(m + SPARE, n - 1), sizes)
        _, certain = _settle(rows, sample, ids, bounds, m, metric, sizes)
        if certain.double().mean() >= 0.8:
            return coarse
    return AngleFilter(rows, metric, torch.float32, sizes.panel)


def _filter_pass(chosen: Filter, queries: Tensor | None, width: int, sizes: Plan) -> tuple[Tensor, Tensor]:
    """Each query's `width` smallest lower bounds: places (q, width) int64 (−1: none) and bounds (q, width) float64."""
    rows = chosen.rows
    n, device = len(rows), rows.E.device
    q = n if queries is None else queries.numel()
    ids = torch.full((q, width), -1, dtype=torch.int64, device=device)
    bounds = torch.full((q, width), torch.inf, dtype=torch.float64, device=device)
    place = torch.arange(n, device=device)
    for i0 in range(0, q, sizes.panel):
        i1 = min(i0 + sizes.panel, q)
        who = place[i0:i1] if queries is None else queries[i0:i1]
        left = chosen.operand(slice(i0, i1) if queries is None else who)
        for j0 in range(i0 if queries is None else 0, n, sizes.tile):
            j1 = min(j0 + sizes.tile, n)
            tall = min(i1, j1) - i0 if queries is None else i1 - i0  # rows below the diagonal are another block's
            right = chosen.operand(slice(j0, j1))
            bound = chosen.lower_bound(chosen.product(left[:tall], right), who[:tall], slice(j0, j1))
            seen = who[:tall, None] >= place[None, j0:j1] if queries is None else who[:, None] == place[None, j0:j1]
            bound.masked_fill_(seen, torch.inf)
            _keep(ids[i0 : i0 + tall], bounds[i0 : i0 + tall], bound, place[j0:j1])
            if queries is None:
                _keep(ids[j0:j1], bounds[j0:j1], bound.T, place[i0 : i0 + tall])
    return ids, bounds


def _keep(ids: Tensor, bounds: Tensor, new: Tensor, places: Tensor) -> None:
    """Merge new bounds (a, b) of candidates places (b,) into the smallest so far, in place."""
    width = ids.shape[1]
    value, at = new.topk(min(width, new.shape[1]), dim=1, largest=False)
    both, order = torch.cat([bounds, value], 1).topk(width, dim=1, largest=False)
    ids.copy_(torch.cat([ids, places[at]], 1).gather(1, order))
    bounds.copy_(both)


def _measure_pairs(rows: Rows, i: Tensor, j: Tensor, metric: str, sizes: Plan) -> tuple[Tensor, Tensor]:
    """Exact keys and values (p,) of pairs of places i, j (p,)."""
    parts = [
        exact_values(rows.block(a), rows.block(b), metric)
        for a, b in zip(i.split(sizes.pairs), j.split(sizes.pairs), strict=True)
    ]
    if not parts:
        empty = torch.empty(0, dtype=torch.float64, device=i.device)
        return empty, empty
    return torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts])


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


def _settle(
    rows: Rows, who: Tensor, ids: Tensor, bounds: Tensor, m: int, metric: str, sizes: Plan
) -> tuple[Found, Tensor]:
    """Measure the kept pairs; say which rows are certain (q,)."""
    n, (q, width) = len(rows), ids.shape
    floor = bounds[:, -1] if width < n - 1 else torch.full_like(bounds[:, -1], torch.inf)
    owner = torch.arange(q, device=ids.device)[:, None].expand(q, width).flatten()
    j = ids.flatten()
    key, value = _measure_pairs(rows, who[owner], j, metric, sizes)
    places, _, values = _first(owner, j, key, value, q, m + 1 if width > m else m)
    beyond = floor if width <= m else torch.minimum(floor, values[:, m])
    certain = _slack(values[:, m - 1], metric) < floor
    return Found(places[:, :m], values[:, :m], beyond), certain


def _exhaust(strict: Filter, who: Tensor, left: Tensor, found: Found, metric: str, sizes: Plan) -> None:
    """Settle the rows `left` of `found` in place, measuring every pair that the filter can't rule out."""
    rows = strict.rows
    n, m = len(rows), found.nearest.shape[1]
    more = min(m + 1, n - 1)
    place = torch.arange(n, device=left.device)
    for part in left.split(sizes.panel):
        queries = who[part]
        operand = strict.operand(queries)
        limit = _slack(found.values[part, m - 1], metric)
        best = [part.new_full((part.numel(), more), -1), None, None]
        empty = torch.full((part.numel(), more), torch.inf, dtype=torch.float64, device=left.device)
        best[1], best[2] = empty, empty.clone()
        outside = torch.full_like(limit, torch.inf)
        for j0 in range(0, n, sizes.tile):
            at = slice(j0, min(j0 + sizes.tile, n))
            bound = strict.lower_bound(strict.product(operand, strict.operand(at)), queries, at)
            bound.masked_fill_(queries[:, None] == place[None, at], torch.inf)
            possible = bound <= limit[:, None]
            outside = torch.minimum(outside, bound.masked_fill(possible, torch.inf).amin(1))
            owner, j = torch.nonzero(possible, as_tuple=True)
            j = j + j0
            key, value = _measure_pairs(rows, queries[owner], j, metric, sizes)
            held = torch.nonzero(best[0] >= 0, as_tuple=True)
            best = list(
                _first(
                    torch.cat([owner, held[0]]),
                    torch.cat([j, best[0][held]]),
                    torch.cat([key, best[1][held]]),
                    torch.cat([value, best[2][held]]),
                    part.numel(),
                    more,
                )
            )
            limit = torch.minimum(limit, _slack(best[2][:, m - 1], metric))
        found.nearest[part], found.values[part] = best[0][:, :m], best[2][:, :m]
        found.beyond[part] = outside if more == m else torch.minimum(outside, best[2][:, m])
