"""Records: what a response's mixed steps were fed, compact, self-checking, replayable in any batch (paper §3.3).

A record holds only the mixed steps of one response: (index in the response, k candidate ids, k−1 weights). It travels
as bytes beside its response, so that padding, sorting, micro-batches and slicing can't tear them apart. It says what it
was made of: the request's seed, the position of the response's first token, digests of the response's tokens and of the
mixing settings, and a fingerprint of the engine's weights; `ngrpo.method.record_checks` compares them with what the
trainer knows, and draws the gate again. And it holds sketches of what the engine's model read at the mixed steps
(`ngrpo.method.sketches`), which training compares with what it feeds there.

Layout, little-endian: magic "NGR3"; uint16 k; uint16 1 where training draws its own noise, plus 2 where there are
scores; uint32 steps M; uint32 response length; uint32 sigmas S; uint32 sketches Q; int64 seed; int64 position of the
response's first token; int64 fingerprint of the weights; 8 bytes digest of the tokens; 8 bytes digest of the settings;
uint16 or uint32 index (M,) (uint16 where the response is shorter than 65,536); int32 ids (M, k); uint16 weights (M,
k−1), the first candidate's weight being the remainder to 1; float32 sigma (S,) of Gaussian noise, one for all fed steps
or one each (the noise itself is drawn again); float32 scores (M, k), or none, of what the mixer's likelihood needs;
float32 sketches (Q, SIZE), one for each step that is mixed or none; 8 bytes digest of all that.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ngrpo.errors import UserError
from ngrpo.method.mixers import WEIGHT_SCALE, Mixer
from ngrpo.method.rng import derive_seed
from ngrpo.method.sketches import SIZE

_HEADER = struct.Struct("<4sHHIIIIqqq8s8s")
_MAGIC = b"NGR3"
_ANEW, _SCORED = 1, 2  # flags


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def response_digest(tokens: Sequence[int] | np.ndarray) -> bytes:
    """8 bytes that identify a response's token ids (without padding)."""
    return _digest(np.ascontiguousarray(tokens, dtype="<i4").tobytes())


def settings_digest(mixer: Mixer, temperature: float, table: bytes = b"") -> bytes:
    """8 bytes that identify how a response's steps were mixed: the mixer, τ, and where it has one the neighbor table.

    table: `Table.digest` of the ids that were looked up; empty for one that follows the weights.
    """
    settings = {"kind": mixer.kind, **asdict(mixer)}  # type: ignore[call-overload]
    text = json.dumps([settings, float(temperature), table.hex() if mixer.needs_table else ""], sort_keys=True)
    return _digest(text.encode())


class Origin(NamedTuple):
    """What a response was made of, as its engine says it: see the module's text."""

    seed: int
    start: int  # position of its first token in prompt and response together
    settings: bytes = bytes(8)  # `settings_digest`
    weights: int = 0  # `fingerprint` of the engine's; 0: it doesn't say


class FedStep(NamedTuple):
    """One mixed step of a response: its index there, and what it fed."""

    at: int
    ids: list[int]
    weights: list[int]
    sigma: float  # of the noise; 0: none
    sketch: tuple[float, ...] = ()  # of what the model read there; empty: not known
    likelihood: float | None = None  # log-likelihood of what is fed; None: its token's log-prob
    scores: tuple[float, ...] = ()  # what that likelihood needs besides log-probs


def log_probs_of(steps: Sequence[FedStep], log_probs: list[float], fed: int) -> None:
    """Put the steps' own likelihoods in place of their tokens' log-probs (T,), in those of the first `fed` tokens.

    The last token of a response feeds nothing, whatever was drawn beside it: its log-prob is its own.
    """
    for step in steps:
        if step.likelihood is not None and step.at < fed:
            log_probs[step.at] = step.likelihood


@dataclass(frozen=True)
class Noise:
    """Gaussian noise that the fed steps of a response got: drawn by (`Record.noise_seed`, start + index there).

    anew: training doesn't feed this noise again but draws its own.
    """

    sigma: np.ndarray  # (1,) or (length − 1,) float32; 0 where a step got none
    anew: bool = False


@dataclass(frozen=True)
class Record:
    """The mixed steps of one response.

    index (M,) int64, ascending positions in the response whose input embedding was a mixture; ids (M, k) int64,
    anchor first; weights (M, k) int32 multiples of 1/WEIGHT_SCALE, rows sum to WEIGHT_SCALE; length and digest of the
    response, and what it was made of. sketches (mixed steps, SIZE) float32: of what the engine's model read there; None
    where it doesn't say. scores (M, k) float32: what the mixer's own likelihood needs; None where it needs none.
    """

    index: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    length: int
    digest: bytes
    origin: Origin
    noise: Noise | None = None
    sketches: np.ndarray | None = None
    scores: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        tokens: Sequence[int],
        index: Sequence[int],
        ids: Sequence,
        weights: Sequence,
        *,
        k: int,
        origin: Origin,
        noise: Noise | None = None,
        sketches: np.ndarray | None = None,
        scores: Sequence | None = None,
    ) -> "Record":
        """Make a response's record. Steps whose token ends the response feed nothing and are left out."""
        fed = [i for i, t in enumerate(index) if t < len(tokens) - 1]
        return cls(
            np.array([index[i] for i in fed], np.int64),
            np.array([ids[i] for i in fed], np.int64).reshape(len(fed), k),
            np.array([weights[i] for i in fed], np.int32).reshape(len(fed), k),
            len(tokens),
            response_digest(tokens),
            origin,
            noise if len(tokens) > 1 else None,
            sketches,
            None if scores is None else np.array([scores[i] for i in fed], np.float32).reshape(len(fed), k),
        )

    @classmethod
    def of_steps(cls, tokens: Sequence[int], steps: Sequence[FedStep], mixer: Mixer, origin: Origin) -> "Record":
        """The record of a response whose mixed steps an engine has kept, ascending.

        Of steps that fed noise on their token's own embedding it holds the noise alone.
        """
        if mixer.dense:
            return cls.of(tokens, [], [], [], k=mixer.width, origin=origin)
        read = [step.sketch for step in steps if step.at < len(tokens) - 1]
        sketches = np.array(read, np.float32) if read and all(read) else None
        steps = [step for step in steps if step.at < len(tokens)]
        noise, fed = None, [step for step in steps if not step.sigma or step.ids != [tokens[step.at]]]
        if any(step.sigma for step in steps):
            sigma = np.zeros(max(1, len(tokens) - 1), np.float32)
            for step in steps:
                if step.at < len(sigma):
                    sigma[step.at] = step.sigma
            same = bool((sigma == sigma[0]).all())
            noise = Noise(sigma[:1] if same else sigma, anew=not mixer.replayed)
        index, ids, weights, *_ = zip(*fed, strict=True) if fed else ((), (), ())
        k = len(ids[0]) if ids else mixer.width if noise is None else 1
        scores = [step.scores for step in fed] if fed and all(step.scores for step in fed) else None
        return cls.of(tokens, index, ids, weights, k=k, origin=origin, noise=noise, sketches=sketches, scores=scores)

    @property
    def k(self) -> int:
        """Candidates a step."""
        return self.ids.shape[1]

    def mixed(self) -> np.ndarray:
        """Which fed steps got anything but their token's own embedding: (length − 1,) bool."""
        out = np.zeros(max(0, self.length - 1), bool)
        if self.noise is not None:
            out[:] = self.noise.sigma != 0
        out[self.index] = True
        return out

    def noise_seed(self, purpose: str = "") -> int:
        """The seed of its noise; where that is drawn anew, another one for each purpose."""
        anew = self.noise is not None and self.noise.anew
        return derive_seed(self.origin.seed, purpose) if anew else self.origin.seed

    def pack(self) -> bytes:
        """Its bytes; see the module's text for the layout."""
        noise, origin, sketches = self.noise, self.origin, np.empty(0) if self.sketches is None else self.sketches
        sizes = (len(self.index), self.length, len(noise.sigma) if noise else 0, len(sketches))
        flags = _ANEW * (noise is not None and noise.anew) + _SCORED * (self.scores is not None)
        numbers = (self.k, flags, *sizes, origin.seed, origin.start, origin.weights)
        parts = [
            _HEADER.pack(_MAGIC, *numbers, self.digest, origin.settings),
            self.index.astype("<u2" if self.length < 1 << 16 else "<u4").tobytes(),
            self.ids.astype("<i4").tobytes(),
            self.weights[:, 1:].astype("<u2").tobytes(),
            noise.sigma.astype("<f4").tobytes() if noise else b"",
            b"" if self.scores is None else self.scores.astype("<f4").tobytes(),
            sketches.astype("<f4").tobytes(),
        ]
        data = b"".join(parts)
        return data + _digest(data)

    @classmethod
    def unpack(cls, data: bytes) -> "Record":
        """The record in these bytes. Raises UserError where they are not one whole, undamaged record."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise UserError("these bytes are not a mixing record", where="record header")
        _, k, flags, m, length, sigmas, read, seed, start, fingerprint, digest, settings = _HEADER.unpack_from(data)
        width = 2 if length < 1 << 16 else 4
        scored = m * k if flags & _SCORED else 0
        size = _HEADER.size + m * (width + 4 * k + 2 * (k - 1)) + 4 * (sigmas + scored + SIZE * read)
        if len(data) != size + 8:
            raise UserError("a mixing record is cut short or too long", where=f"record of {m} steps, k={k}")
        if data[size:] != _digest(data[:size]):
            raise UserError("a mixing record is damaged: its digest differs", where=f"record of {m} steps, k={k}")
        at = _HEADER.size
        index = np.frombuffer(data, f"<u{width}", m, at).astype(np.int64)
        at += m * width
        ids = np.frombuffer(data, "<i4", m * k, at).astype(np.int64).reshape(m, k)
        at += 4 * m * k
        rest = np.frombuffer(data, "<u2", m * (k - 1), at).astype(np.int32).reshape(m, k - 1)
        at += 2 * m * (k - 1)
        sigma = np.frombuffer(data, "<f4", sigmas, at).astype(np.float32)
        at += 4 * sigmas
        scores = np.frombuffer(data, "<f4", scored, at).astype(np.float32).reshape(m, k) if flags & _SCORED else None
        at += 4 * scored
        sketches = np.frombuffer(data, "<f4", SIZE * read, at).astype(np.float32).reshape(read, SIZE) if read else None
        weights = np.concatenate([WEIGHT_SCALE - rest.sum(-1, keepdims=True, dtype=np.int32), rest], axis=1)
        origin = Origin(seed, start, settings, fingerprint)
        noise = Noise(sigma, bool(flags & _ANEW)) if sigmas else None
        return cls(index, ids, weights, length, digest, origin, noise, sketches, scores)

    def check(self, tokens: Sequence[int] | np.ndarray, seed: int | None = None) -> None:
        """Raise UserError unless this record was made for exactly these response tokens (without padding).

        seed: their request's, if that is known apart from the record.
        """
        foreign = seed is not None and seed != self.origin.seed
        if foreign or len(tokens) != self.length or response_digest(tokens) != self.digest:
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


def gather_scores(records: Sequence[Record]) -> Tensor | None:
    """A batch's scores (M, k) float32 in the order of `gather`, or None where the records hold none."""
    known = [r.scores for r in records if r.scores is not None and len(r.scores)]
    return torch.from_numpy(np.concatenate(known)) if known else None


def gather_noise(
    records: Sequence[Record], width: int, purpose: str = ""
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """A batch's Gaussian noise, or None where no response got any. purpose: of the pass, for noise that is drawn anew.

    Returns mask (B, width) bool over response positions, and in its row-major order seed (N,) int64, position (N,)
    int64 (the key of `rng.normal`) and sigma (N,) float32.
    """
    noisy = [(row, r, r.noise, r.length - 1) for row, r in enumerate(records) if r.noise is not None]
    if not noisy:
        return None
    mask = torch.zeros(len(records), width, dtype=torch.bool)
    for row, _, _, n in noisy:
        mask[row, :n] = True
    seed = np.concatenate([np.full(n, r.noise_seed(purpose), np.int64) for _, r, _, n in noisy])
    position = np.concatenate([r.origin.start + np.arange(n) for _, r, _, n in noisy])
    sigma = np.concatenate([np.broadcast_to(noise.sigma, n) for _, _, noise, n in noisy])
    return mask, torch.from_numpy(seed), torch.from_numpy(position), torch.from_numpy(sigma.copy())


def gather_sketches(records: Sequence[Record], width: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """A batch's sketches, or None where no record holds any.

    Returns mask (B, width) bool over response positions, and in its row-major order the sketches (S, SIZE) float32 and
    their requests' seeds (S,) int64.
    """
    known = [(row, r.mixed(), r.sketches, r.origin.seed) for row, r in enumerate(records) if r.sketches is not None]
    if not known:
        return None
    mask = torch.zeros(len(records), width, dtype=torch.bool)
    for row, mixed, _, _ in known:
        mask[row, : len(mixed)] = torch.from_numpy(mixed)
    sketches = np.concatenate([read for _, _, read, _ in known])
    seed = np.concatenate([np.full(len(read), seed, np.int64) for _, _, read, seed in known])
    return mask, torch.from_numpy(sketches), torch.from_numpy(seed)
