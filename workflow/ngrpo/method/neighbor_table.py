"""Neighbor tables: each token's exact nearest tokens in E (Eq. 7–8), and their file.

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
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ngrpo.errors import UserError, unknown_name
from ngrpo.files import whole_file
from ngrpo.method import rng
from ngrpo.method.knn.filters import measure
from ngrpo.method.knn.kernels import METRICS
from ngrpo.method.knn.search import block_sizes, search

SPECIAL_TOKENS = ("keep", "exclude")
RANDOM = "random"  # in place of a metric
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

    E (V, d) floating, on CPU or GPU, converted to float32 block by block. metric: cosine, l2 or l1; "random" takes
    others at random in place of the nearest, the same ones whatever E holds (a control). exclude (V,) bool: tokens that
    are nobody's neighbors and map to themselves, as zero rows do. queries (Q,) int: only these tokens'
    rows. memory: bytes used beyond E, roughly; block sets the block size outright. Raises UserError for NaN or infinite
    rows, and where fewer than k tokens are left to choose from. Source: Eq. 7–8.
    """
    if metric not in (*METRICS, RANDOM):
        raise unknown_name("metric", metric, (*METRICS, RANDOM), where="neighbors: metric")
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
    place = torch.full((E.shape[0],), -1, dtype=torch.int64, device=E.device)
    place[rows.index] = torch.arange(n, device=E.device)
    here = torch.nonzero(place[asked] >= 0).flatten()
    if k == 1 or here.numel() == 0:
        return ids
    if metric == RANDOM:
        ids[here, 1:] = rows.index[_at_random(place[asked[here]], n, k - 1)]
        return ids
    others = search(rows, None if queries is None else place[asked[here]], k - 1, metric, sizes)
    ids[here, 1:] = rows.index[others.ids]
    return ids


def _at_random(own: Tensor, n: int, w: int) -> Tensor:
    """w different others of n for each of these places (Q,), a function of the place alone: (Q, w). w < n."""
    taken = own[:, None]
    for column in range(w):
        drawn = own.clone()  # its own place: taken, so drawn below
        again, attempt = torch.ones_like(own, dtype=torch.bool), 0
        while again.any():
            position = torch.full_like(own, column + w * attempt)
            new = (rng.uniform(own, position, rng.NEIGHBOR) * n).long()
            drawn, attempt = torch.where(again, new, drawn), attempt + 1
            again = (drawn[:, None] == taken).any(1)
        taken = torch.cat([taken, drawn[:, None]], 1)
    return taken[:, 1:]


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

    ids (V, k) int32, the token itself first. excluded (V,) bool. E_digest: of the E it was computed from.
    """

    ids: Tensor
    excluded: Tensor
    metric: str
    special_tokens: str
    vocabulary_size: int
    E_digest: str

    @property
    def k(self) -> int:
        """Candidates a token, itself included."""
        return self.ids.shape[1]

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that identify its ids."""
        ids = self.ids.to("cpu", torch.int32).contiguous().numpy()
        return hashlib.blake2b(repr(ids.shape).encode() + ids.tobytes(), digest_size=16).digest()

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
                tensors = {name: f.get_tensor(name) for name in ("ids", "excluded")}
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
    ids = nearest(E, k, metric, exclude=excluded, memory=memory)
    return Table(ids.to(torch.int32), excluded, metric, special_tokens, size, digest(E))
