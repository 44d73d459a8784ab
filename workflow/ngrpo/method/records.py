"""Records: what a response's mixed steps were fed, compact, self-checking, replayable in any batch (paper §3.3).

A record holds only the mixed steps of one response: (index in the response, k candidate ids, k−1 weights). It travels
as bytes beside its response, so that padding, sorting, micro-batches and slicing can't tear them apart, and it
carries a digest of the response's tokens, so that it can't be replayed with another response.

Layout, little-endian: magic "NGR1"; uint16 k; uint32 steps M; uint32 response length; uint32 sigmas S; 8 bytes digest;
uint16 or uint32 index (M,) (uint16 where the response is shorter than 65,536); int32 ids (M, k); uint16 weights
(M, k−1), the first candidate's weight being the remainder to 1. Where Gaussian noise was fed (S > 0): int64 seed; int64
position of the response's first token; float32 sigma (S,), one for all fed steps or one each. The noise itself is drawn
again; −1 − seed in the seed's place says that training draws other noise of the same size.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.mixers import WEIGHT_SCALE, Mixer
from ngrpo.method.rng import derive_seed

_HEADER = struct.Struct("<4sHIII8s")
_NOISE = struct.Struct("<qq")
_MAGIC = b"NGR1"


def response_digest(tokens: Sequence[int] | np.ndarray) -> bytes:
    """8 bytes that identify a response's token ids (without padding)."""
    return hashlib.blake2b(np.ascontiguousarray(tokens, dtype="<i4").tobytes(), digest_size=8).digest()


class FedStep(NamedTuple):
    """One mixed step of a response: its index there, and what it fed."""

    at: int
    ids: list[int]
    weights: list[int]
    sigma: float  # of the noise; 0: none


@dataclass(frozen=True)
class Noise:
    """Gaussian noise that the fed steps of a response got: drawn by (seed, start + index in the response).

    anew: training doesn't feed this noise again but draws its own (`drawn_anew`).
    """

    seed: int
    start: int
    sigma: np.ndarray  # (1,) or (length − 1,) float32; 0 where a step got none
    anew: bool = False

    def drawn_anew(self, purpose: str) -> "Noise":
        """The same noise, or where it is drawn anew that of another seed: one of its own for each purpose."""
        return self if not self.anew else Noise(derive_seed(self.seed, purpose), self.start, self.sigma)


@dataclass(frozen=True)
class Record:
    """The mixed steps of one response.

    index (M,) int64, ascending positions in the response whose input embedding was a mixture; ids (M, k) int64,
    anchor first; weights (M, k) int32 multiples of 1/WEIGHT_SCALE, rows sum to WEIGHT_SCALE; length and digest of the
    response.
    """

    index: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    length: int
    digest: bytes
    noise: Noise | None = None

    @classmethod
    def of(
        cls,
        tokens: Sequence[int],
        index: Sequence[int],
        ids: Sequence,
        weights: Sequence,
        *,
        k: int,
        noise: Noise | None = None,
    ) -> "Record":
        """Make a response's record. Steps whose token ends the response feed nothing and are left out."""
        fed = [i for i, t in enumerate(index) if t < len(tokens) - 1]
        return cls(
            np.array([index[i] for i in fed], np.int64),
            np.array([ids[i] for i in fed], np.int64).reshape(len(fed), k),
            np.array([weights[i] for i in fed], np.int32).reshape(len(fed), k),
            len(tokens),
            response_digest(tokens),
            noise if len(tokens) > 1 else None,
        )

    @classmethod
    def of_steps(cls, tokens: Sequence[int], steps: Sequence[FedStep], mixer: Mixer, seed: int, start: int) -> "Record":
        """The record of a response whose mixed steps an engine has kept, ascending; start: position of its first token.

        Of steps that fed noise on their token's own embedding it holds the noise alone.
        """
        if mixer.dense:
            return cls.of(tokens, [], [], [], k=mixer.width)
        steps = [step for step in steps if step.at < len(tokens)]
        noise, fed = None, [step for step in steps if not step.sigma or step.ids != [tokens[step.at]]]
        if any(step.sigma for step in steps):
            sigma = np.zeros(max(1, len(tokens) - 1), np.float32)
            for step in steps:
                if step.at < len(sigma):
                    sigma[step.at] = step.sigma
            same = bool((sigma == sigma[0]).all())
            noise = Noise(seed, start, sigma[:1] if same else sigma, anew=not mixer.replayed)
        index, ids, weights, _ = zip(*fed, strict=True) if fed else ((), (), (), ())
        k = len(ids[0]) if ids else mixer.width if noise is None else 1
        return cls.of(tokens, index, ids, weights, k=k, noise=noise)

    @property
    def k(self) -> int:
        """Candidates a step."""
        return self.ids.shape[1]

    def pack(self) -> bytes:
        """Its bytes; see the module's text for the layout."""
        noise = self.noise
        parts = [
            _HEADER.pack(_MAGIC, self.k, len(self.index), self.length, len(noise.sigma) if noise else 0, self.digest),
            self.index.astype("<u2" if self.length < 1 << 16 else "<u4").tobytes(),
            self.ids.astype("<i4").tobytes(),
            self.weights[:, 1:].astype("<u2").tobytes(),
        ]
        if noise:
            seed = -1 - noise.seed if noise.anew else noise.seed
            parts += [_NOISE.pack(seed, noise.start), noise.sigma.astype("<f4").tobytes()]
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """The record in these bytes. Raises UserError where they are not one whole record."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise UserError("these bytes are not a mixing record", where="record header")
        _, k, m, length, sigmas, digest = _HEADER.unpack_from(data)
        width = 2 if length < 1 << 16 else 4
        size = _HEADER.size + m * (width + 4 * k + 2 * (k - 1)) + (_NOISE.size + 4 * sigmas if sigmas else 0)
        if len(data) != size:
            raise UserError("a mixing record is cut short or too long", where=f"record of {m} steps, k={k}")
        at = _HEADER.size
        index = np.frombuffer(data, f"<u{width}", m, at).astype(np.int64)
        at += m * width
        ids = np.frombuffer(data, "<i4", m * k, at).astype(np.int64).reshape(m, k)
        at += 4 * m * k
        rest = np.frombuffer(data, "<u2", m * (k - 1), at).astype(np.int32).reshape(m, k - 1)
        at += 2 * m * (k - 1)
        noise = None
        if sigmas:
            seed, start = _NOISE.unpack_from(data, at)
            sigma = np.frombuffer(data, "<f4", sigmas, at + _NOISE.size).astype(np.float32)
            noise = Noise(-1 - seed if seed < 0 else seed, start, sigma, anew=seed < 0)
        weights = np.concatenate([WEIGHT_SCALE - rest.sum(-1, keepdims=True, dtype=np.int32), rest], axis=1)
        return cls(index, ids, weights, length, digest, noise)

    def check(self, tokens: Sequence[int] | np.ndarray) -> None:
        """Raise UserError unless this record was made for exactly these response tokens (without padding)."""
        if len(tokens) != self.length or response_digest(tokens) != self.digest:
            raise UserError(
                "a mixing record was offered with another response than the one that it was made for",
                where=f"record of a response of {self.length} tokens, offered {len(tokens)}",
                do="keep records and responses together when batches are sorted, split or padded",
            )


def gather(records: Sequence[Record], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A batch's records as one mask and its candidates.

    Returns mask (B, width) bool over response positions, and in its row-major order ids (M, k) int64 and weights (M, k)
    int32. Raises UserError where records have different k.
    """
    mask = torch.zeros(len(records), width, dtype=torch.bool)
    for row, record in enumerate(records):
        mask[row, torch.from_numpy(record.index)] = True
    widths = {r.k for r in records if len(r.index)}
    if len(widths) > 1:
        raise UserError(f"records of different k in one batch: {sorted(widths)}", where="mixing records")
    k = widths.pop() if widths else 1
    ids = np.concatenate([r.ids.reshape(-1, k) if len(r.index) else np.empty((0, k), np.int64) for r in records])
    weights = np.concatenate(
        [r.weights.reshape(-1, k) if len(r.index) else np.empty((0, k), np.int32) for r in records]
    )
    return mask, torch.from_numpy(ids), torch.from_numpy(weights)


def gather_noise(
    records: Sequence[Record], width: int, purpose: str = ""
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """A batch's Gaussian noise, or None where no response got any. purpose: of the pass, for noise that is drawn anew.

    Returns mask (B, width) bool over response positions, and in its row-major order seed (N,) int64, position (N,)
    int64 (the key of `rng.normal`) and sigma (N,) float32.
    """
    noisy = [(row, r, r.noise.drawn_anew(purpose)) for row, r in enumerate(records) if r.noise is not None]
    if not noisy:
        return None
    mask = torch.zeros(len(records), width, dtype=torch.bool)
    for row, record, _ in noisy:
        mask[row, : record.length - 1] = True
    steps = [record.length - 1 for _, record, _ in noisy]
    seed = np.concatenate([np.full(n, noise.seed, np.int64) for n, (_, _, noise) in zip(steps, noisy, strict=True)])
    position = np.concatenate([noise.start + np.arange(n) for n, (_, _, noise) in zip(steps, noisy, strict=True)])
    sigma = np.concatenate([np.broadcast_to(noise.sigma, n) for n, (_, _, noise) in zip(steps, noisy, strict=True)])
    return mask, torch.from_numpy(seed), torch.from_numpy(position), torch.from_numpy(sigma.copy())
