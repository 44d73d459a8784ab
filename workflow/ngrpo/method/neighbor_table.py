"""Neighbor tables: each token's exact nearest tokens in E (Eq. 7–8), their file, and their refresh during training.

| letter | meaning | shape |
|---|---|---|
| E | input embedding matrix of the policy | (V, d) |
| C | the anchor and its k−1 nearest neighbors in E, anchor first | (V, k) |

Departures, and why (the paper says nothing on any of these):
1. Zero rows and rows beyond the tokenizer's vocabulary are padding, not tokens: they are nobody's neighbors, and their
   own row is k times themselves, so that mixing feeds back what it would have fed anyway.
2. Special tokens are tokens like others (`special_tokens: keep`), since Eq. 7 runs over the whole vocabulary; `exclude`
   treats them as padding.
3. Equal distances are ordered by id; distances are float64 sums over the float32 entries of E.
4. `refresh` lets a table follow a policy that is being trained; the paper's is computed once.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import whole_file
from ngrpo.method.knn.filters import measure
from ngrpo.method.knn.kernels import METRICS
from ngrpo.method.knn.search import block_sizes, search

SPECIAL_TOKENS = ("keep", "exclude")
MEMORY = 512 << 20  # bytes that a search may use beyond E


def nearest(
    E: Tensor,
    k: int,
    metric: str,
    *,
    exclude: Tensor | None = None,
    block: int | None = None,
    memory: int = MEMORY,
    queries: Tensor | None = None,
) -> Tensor:
    """Each token and its k−1 exact nearest others, in order of distance, then of id: (V, k) or (Q, k) int64.

    E (V, d) floating, on CPU or GPU, converted to float32 block by block. metric: cosine, l2 or l1. exclude (V,) bool:
    tokens that are nobody's neighbors and map to themselves, as zero rows do. queries (Q,) int: only these tokens'
    rows. memory: bytes used beyond E, roughly; block sets the block size outright. Raises UserError for NaN or infinite
    rows, and where fewer than k tokens are left to choose from. Source: Eq. 7–8.
    """
    return _nearest(E, k, metric, exclude, block, memory, queries)[0]


def _nearest(
    E: Tensor,
    k: int,
    metric: str,
    exclude: Tensor | None,
    block: int | None,
    memory: int,
    queries: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`nearest`, and each row's margin (see `Table.margins`)."""
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS, where="neighbors: metric")
    if k < 1:
        raise UserError(f"k is {k}", where="neighbors: k", do="choose 1 (the anchor only) or more")
    E = E.detach()
    sizes = block_sizes(E.shape[1], memory, block)
    rows = measure(E, exclude)
    n = len(rows)
    if k > max(n, 1):
        raise UserError(
            f"k is {k}, but only {n} of {E.shape[0]} tokens can be neighbors",
            where="neighbors: k",
            do="choose a smaller k, or exclude fewer tokens",
        )
    asked = torch.arange(E.shape[0], device=E.device) if queries is None else queries.to(E.device, torch.int64)
    ids = asked[:, None].repeat(1, k)
    margins = torch.full((asked.numel(),), torch.inf, dtype=torch.float32, device=E.device)
    place = torch.full((E.shape[0],), -1, dtype=torch.int64, device=E.device)
    place[rows.index] = torch.arange(n, device=E.device)
    here = torch.nonzero(place[asked] >= 0).flatten()
    if k == 1 or here.numel() == 0:
        return ids, margins
    others = search(rows, None if queries is None else place[asked[here]], min(k, n - 1), metric, sizes)
    ids[here, 1:] = rows.index[others.ids[:, : k - 1]]
    margins[here] = _margins(others.values, k - 1, metric)
    return ids, margins


def _margins(values: Tensor, m: int, metric: str) -> Tensor:
    """The smallest gap between successive distances (q,), that to the first one left out included; rounded down."""
    distance = _as_distance(values, metric)
    if values.shape[1] == 1:  # two tokens in all
        return torch.full_like(distance[:, 0], torch.inf, dtype=torch.float32)
    gap = (distance[:, 1:] - distance[:, :-1]).amin(1)
    safety = 3e-6 if metric == "cosine" else 1e-9 * distance[:, m - 1]
    return (gap - safety).clamp_min(0).float() * (1 - 2.0**-20)


def _as_distance(values: Tensor, metric: str) -> Tensor:
    """Values as a distance that obeys the triangle inequality: cosine as the chord between unit vectors."""
    if metric == "cosine":
        return (2 + 2 * values).clamp_min(0).sqrt()
    return values.clamp_min(0).sqrt() if metric == "l2" else values


def digest(E: Tensor) -> str:
    """SHA-256 of E's shape and float32 values: equal for a bfloat16 matrix and its float32 copy."""
    sha = hashlib.sha256(repr(tuple(E.shape)).encode())
    for part in E.detach().split(4096):
        sha.update(part.float().cpu().contiguous().numpy().data)
    return sha.hexdigest()


def excluded_tokens(
    V: int, vocabulary_size: int, special_ids: Iterable[int] = (), special_tokens: str = "keep"
) -> Tensor:
    """Rows of E that are no candidates (V,) bool: those beyond the tokenizer's vocabulary; specials if "exclude"."""
    if special_tokens not in SPECIAL_TOKENS:
        raise unknown_name("treatment of special tokens", special_tokens, SPECIAL_TOKENS, where="special_tokens")
    if not 1 <= vocabulary_size <= V:
        raise UserError(
            f"the tokenizer has {vocabulary_size} tokens, the embedding matrix {V} rows",
            where="neighbors: vocabulary size",
            do="use the tokenizer that belongs to the model",
        )
    out = torch.arange(V) >= vocabulary_size
    if special_tokens == "exclude":
        out[torch.tensor(sorted(special_ids), dtype=torch.int64)] = True
    return out


@dataclass(frozen=True)
class Table:
    """Neighbors of every token, and what they were computed from.

    ids (V, k) int32, the token itself first. margins (V,) float32: how much nearer each neighbor is than the next, at
    the least; inf for tokens that map to themselves. excluded (V,) bool. E_digest: of the E it was computed from.
    """

    ids: Tensor
    margins: Tensor
    excluded: Tensor
    metric: str
    special_tokens: str
    vocabulary_size: int
    E_digest: str

    @property
    def k(self) -> int:
        """Candidates a token, itself included."""
        return self.ids.shape[1]

    def check(self, rows: int, k: int, metric: str) -> None:
        """Raise UserError unless the table is for a model with so many embedding rows, this k and this metric."""
        for what, mine, wanted in (
            ("rows", self.ids.shape[0], rows),
            ("k", self.k, k),
            ("metric", self.metric, metric),
        ):
            if mine != wanted:
                raise UserError(
                    f"vocabulary and table don't match: the model has {wanted} embedding rows, the table {mine}"
                    if what == "rows"
                    else f"the table's {what} is {mine}, but {wanted} is asked for",
                    where=f"neighbor table: {what}",
                    do="build the table anew for this model and these settings",
                )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with its metadata, whole or not at all."""
        from safetensors.torch import save_file

        facts = {
            "metric": self.metric,
            "k": self.k,
            "special_tokens": self.special_tokens,
            "vocabulary_size": self.vocabulary_size,
            "E_digest": self.E_digest,
        }
        tensors = {
            "ids": self.ids.cpu().contiguous(),
            "margins": self.margins.cpu().contiguous(),
            "excluded": self.excluded.cpu().contiguous(),
        }
        with whole_file(path) as part:
            save_file(tensors, part, metadata={"neighbor_table": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read what `save` wrote; raises UserError for a missing, damaged or foreign file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as f:
                facts = json.loads((f.metadata() or {}).get("neighbor_table", "null"))
                if facts is None:
                    raise UserError("a safetensors file, but not a neighbor table", where=path)
                tensors = {name: f.get_tensor(name) for name in ("ids", "margins", "excluded")}
        except FileNotFoundError:
            raise UserError("there is no neighbor table", where=path, do="build it first") from None
        except SafetensorError as e:
            raise UserError(f"not readable as a neighbor table: {e}", where=path, do="delete and rebuild it") from None
        k = facts.pop("k")
        if tensors["ids"].shape[1] != k:
            raise UserError(f"the table says k = {k} but has {tensors['ids'].shape[1]} columns", where=path)
        return cls(**tensors, **facts)


def build(
    E: Tensor,
    k: int,
    metric: str,
    *,
    vocabulary_size: int | None = None,
    special_ids: Iterable[int] = (),
    special_tokens: str = "keep",
    memory: int = MEMORY,
) -> Table:
    """The table of E (V, d). vocabulary_size: tokens of the tokenizer (None: V). Raises UserError as `nearest` does."""
    size = E.shape[0] if vocabulary_size is None else vocabulary_size
    excluded = excluded_tokens(E.shape[0], size, special_ids, special_tokens)
    ids, margins = _nearest(E, k, metric, excluded, None, memory, None)
    return Table(ids.to(torch.int32), margins, excluded, metric, special_tokens, size, digest(E))


def refresh(table: Table, E: Tensor, *, previous: Tensor | None = None, memory: int = MEMORY) -> tuple[Table, int]:
    """The table of a new E (V, d), equal to `build`'s, and how many of its rows changed.

    previous (V, d): the E of `table`. With it only rows are searched whose margin is smaller than twice what they and
    the farthest-moved row can have moved (the triangle inequality decides all others), at a cost of a few passes over E
    plus (rows searched)·V·d; without it the cost is a whole build's. An unchanged E costs one digest.
    Raises UserError where the sizes differ or `previous` isn't the table's.
    """
    table.check(E.shape[0], table.k, table.metric)
    new_digest = digest(E)
    if new_digest == table.E_digest:
        return table, 0
    facts = (table.metric, table.special_tokens, table.vocabulary_size, new_digest)
    old = table.ids.to(E.device, torch.int64)
    left = None if previous is None else _margins_left(table, E, previous)
    unsure = None if left is None else torch.nonzero(left <= 0).flatten()
    if left is None or unsure is None or unsure.numel() > 0.5 * E.shape[0]:
        ids, margins = _nearest(E, table.k, table.metric, table.excluded, None, memory, None)
    else:
        ids, margins = old.clone(), left
        ids[unsure], margins[unsure] = _nearest(E, table.k, table.metric, table.excluded, None, memory, unsure)
    changed = int((ids != old).any(1).sum())
    return Table(ids.to(torch.int32), margins, table.excluded, *facts), changed


def changed_rows(table: Table, E: Tensor, *, previous: Tensor | None = None, memory: int = MEMORY) -> int:
    """How many rows of the table a new E would change, exactly. Cost and errors: see `refresh`."""
    return refresh(table, E, previous=previous, memory=memory)[1]


def _margins_left(table: Table, E: Tensor, previous: Tensor) -> Tensor | None:
    """Each row's margin less the most that the movement can have taken from it (V,) float32; None: can't be told."""
    if digest(previous) != table.E_digest:
        raise UserError("`previous` isn't the matrix that the table was computed from", where="neighbors: refresh")
    moved = torch.empty(E.shape[0], dtype=torch.float64, device=E.device)
    p = 1 if table.metric == "l1" else 2
    blank = torch.zeros(E.shape[0], dtype=torch.bool, device=E.device)
    for a in range(0, E.shape[0], 4096):
        x, y = E[a : a + 4096].detach().double(), previous[a : a + 4096].detach().to(E.device).double()
        nx, ny = x.norm(dim=1), y.norm(dim=1)
        blank[a : a + 4096] = (nx == 0) != (ny == 0)
        if table.metric == "cosine":
            x, y = x / nx.clamp_min(1e-300)[:, None], y / ny.clamp_min(1e-300)[:, None]
        moved[a : a + 4096] = torch.linalg.vector_norm(x - y, ord=p, dim=1)
    if blank.any():
        return None
    moved[table.excluded.to(E.device)] = 0
    taken = 2 * (moved + moved.max()) * (1 + 1e-9) + 1e-12
    left = table.margins.to(E.device).double() - taken
    return torch.where(left > 0, left * (1 - 2.0**-20), torch.zeros_like(left)).float()
