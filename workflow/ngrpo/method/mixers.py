"""Input mixers: which token is written down, and which vector is fed to the next step.

| letter | meaning | shape |
|---|---|---|
| z̃ | scaled logits (Eq. 2) | (B, V) |
| v* | anchor, argmax z̃ (Eq. 6) | (B,) |
| C | the anchor and its k−1 nearest neighbors, anchor first (Eq. 7–8) | (B, k) |
| α | softmax of z̃ over C (Eq. 9) | (B, k) |
| ẽ | Σ_c α(c) E[c] (Eq. 10) | (B, d) |
| m | mixing mask, Bernoulli(ρ) per sequence and step (Eq. 11) | (B,) |

A mixer turns (z̃, sampled token, seed, position) into a `Step`. Rollout and decoding use the same object, in every
engine; `blend` computes ẽ, in the engine and in the trainer, so that replay is the same arithmetic.

Departures, and why:
1. α is cut to multiples of 2⁻¹⁶ before it is used, the first candidate taking the remainder: the weights still sum to
   exactly 1, what is recorded is exactly what was fed, and a record needs two bytes a neighbor. A weight changes by at
   most (k−1)·2⁻¹⁶, far below bfloat16's 2⁻⁹.
2. Gaussian noise (STHT) is relative to the root mean square of all entries of E, computed when weights change, and is
   drawn from a counter, so that a record holds a key and no floats.
3. Soft Thinking (sampling only, never replayed) writes the sampled token; its paper doesn't say which is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from ngrpo.errors import UserError, unknown_name
from ngrpo.method import rng
from ngrpo.method.sampling import restrict

WEIGHT_SCALE = 1 << 16  # weights are multiples of 1/WEIGHT_SCALE


class Step(NamedTuple):
    """One step of a batch: what is written, and what is fed next."""

    token: Tensor  # (B,) int64, the token written down
    on: Tensor  # (B,) bool, where a mixture is fed; elsewhere E[token]
    ids: Tensor  # (B, k) int64, the candidates, anchor first
    weights: Tensor  # (B, k) int32, their weights as multiples of 1/WEIGHT_SCALE; every row sums to WEIGHT_SCALE
    sigma: Tensor | None = None  # (B,) float32, Gaussian noise added to what is fed, keyed by (seed, position)
    dense: Tensor | None = None  # (B, V) float32, weights over the whole vocabulary, in place of ids and weights
    state: Tensor | None = None  # (B,) int32, what the mixer wants back at the sequence's next step


class Mixer(Protocol):
    """What every input mixer offers."""

    kind: ClassVar[str]
    width: int  # k, the most candidates of a step

    def step(
        self,
        z: Tensor,
        token: Tensor,
        seed: Tensor,
        position: Tensor,
        table: Tensor | None = None,
        *,
        rms: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Step:
        """z (B, V) scaled logits; token (B,) sampled; seed, position (B,) int64; table (V, k) neighbors, if needed.

        position is the index, in prompt and response together, of the token that is being written. rms (V,): root mean
        square of each row of E, for mixers that add noise. state (B,) int32: the last step's, 0 at a sequence's start.
        """
        ...


ENDED = -1  # state of a sequence whose thinking has ended: no more mixing


def _open(stop: int | None, state: Tensor | None, on: Tensor) -> Tensor:
    """The gate `on`, closed in sequences that have written the token `stop`."""
    return on if stop is None or state is None else on & (state != ENDED)


def _next(stop: int | None, state: Tensor | None, token: Tensor) -> Tensor | None:
    """The next step's state: ENDED from the token `stop` on."""
    if stop is None:
        return None
    return torch.where(token == stop, ENDED, torch.zeros_like(token, dtype=torch.int32) if state is None else state)


def quantize(alpha: Tensor) -> Tensor:
    """Weights (B, k) that sum to 1 → int32 ones that sum to WEIGHT_SCALE; the first column takes what cutting leaves."""
    weights = (alpha * WEIGHT_SCALE).floor().clamp(max=WEIGHT_SCALE - 1).to(torch.int32)
    weights[:, 0] = WEIGHT_SCALE - weights[:, 1:].sum(-1, dtype=torch.int32)
    return weights


def blend(rows: Tensor, weights: Tensor) -> Tensor:
    """ẽ = Σ α(c) E[c] (Eq. 10): rows (M, k, d) of E, weights (M, k) → (M, d) in rows' dtype, summed in float32.

    Differentiable with respect to rows; the weights are constants (paper §3.3).
    """
    alpha = weights.to(torch.float32) * (1.0 / WEIGHT_SCALE)
    return (alpha.unsqueeze(-1) * rows.float()).sum(-2).to(rows.dtype)


@dataclass(frozen=True)
class NoMixer:
    """Token sampled, E[token] fed: stock decoding."""

    kind: ClassVar[str] = "none"
    width: ClassVar[int] = 1

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None) -> Step:
        """Never mixes."""
        return Step(token, torch.zeros_like(token, dtype=torch.bool), *_itself(token))


def _itself(token: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates and weights of an input that is E[token]."""
    return token[:, None].long(), torch.full_like(token, WEIGHT_SCALE, dtype=torch.int32)[:, None]


@dataclass(frozen=True)
class NeighborMixer:
    """N-GRPO's mixing (Eq. 6–11): with probability ρ the anchor is written and the neighbors' mixture is fed.

    rho: ρ in [0, 1]; 1 is the ablation "w/o rate". k: candidates, the anchor included, ≥ 1. metric: of the table.
    weights: softmax over C of z̃ ("logits", Eq. 9) or of the probabilities ("probabilities", the release). text: a mixed
    step writes the anchor (paper) or the sampled token (release). stop_after: a token after which nothing is mixed.
    """

    rho: float
    k: int = 3
    metric: str = "cosine"
    weights: str = "logits"
    text: str = "anchor"
    stop_after: int | None = None

    kind: ClassVar[str] = "neighbors"

    def __post_init__(self) -> None:
        if not 0 <= self.rho <= 1:
            raise UserError(f"rho is {self.rho}", where="mixer neighbors: rho", do="choose a number from 0 to 1")
        if self.k < 1:
            raise UserError(f"k is {self.k}", where="mixer neighbors: k", do="choose 1 (anchor only) or more")
        _one_of(self, "weights", ("logits", "probabilities"))
        _one_of(self, "text", ("anchor", "sampled"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None) -> Step:
        """Needs the neighbor table (V, k), anchor first."""
        if table is None:
            raise UserError("neighbor mixing without a neighbor table", where="mixer neighbors", do="name a table")
        anchor = z.argmax(-1)
        ids = table[anchor].long()
        scores = z if self.weights == "logits" else torch.softmax(z, -1)
        alpha = torch.softmax(scores.gather(-1, ids), -1)
        on = _open(self.stop_after, state, rng.uniform(seed, position, rng.GATE) < self.rho)
        token = torch.where(on, anchor, token) if self.text == "anchor" else token
        return Step(token, on, ids, quantize(alpha), state=_next(self.stop_after, state, token))


@dataclass(frozen=True)
class GaussianMixer:
    """STHT (arXiv 2509.19170 §3–4): every step feeds E[token] + σ·N(0, I), σ = factor × the RMS of E's entries.

    scope: the RMS of the whole matrix (the paper's), or of that one row ("row", the release's). replay: whether the
    record carries the noise's key (the release draws anew in training).
    """

    factor: float = 0.33
    scope: str = "matrix"
    replay: bool = True

    kind: ClassVar[str] = "gaussian"
    width: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise UserError(f"factor is {self.factor}", where="mixer gaussian: factor", do="choose 0 or more")
        _one_of(self, "scope", ("matrix", "row"))

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None) -> Step:
        """Needs the row RMS of E. With factor 0 nothing is mixed."""
        if rms is None:
            raise UserError("Gaussian noise without the RMS of the embedding", where="mixer gaussian")
        scale = rms[token] if self.scope == "row" else rms.double().square().mean().sqrt().expand(token.shape)
        on = torch.full_like(token, self.factor > 0, dtype=torch.bool)
        return Step(token, on, *_itself(token), sigma=(self.factor * scale).float())


@dataclass(frozen=True)
class GumbelMixer:
    """Gumbel Soft-Thinking (SofT-GRPO, arXiv 2511.06411): every step feeds the k likeliest after Gumbel noise.

    Candidates are the top k of log p + clamp(Gumbel, low, high); weights softmax(·/temperature) of the noisy scores
    (paper) or of the clean logits ("clean", the release). The written token is the first candidate.
    """

    k: int = 5
    temperature: float = 0.1
    low: float = -1.5
    high: float = 3.0
    weights: str = "noisy"

    kind: ClassVar[str] = "gumbel"

    def __post_init__(self) -> None:
        for name, good in (("k", self.k >= 1), ("temperature", self.temperature > 0), ("high", self.high > self.low)):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"mixer gumbel: {name}")
        _one_of(self, "weights", ("noisy", "clean"))

    @property
    def width(self) -> int:
        """k."""
        return self.k

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None) -> Step:
        """The sampled token is not used: the noise has drawn one."""
        noise = rng.gumbel(seed, position, z.shape[-1]).clamp(self.low, self.high)
        noisy = torch.log_softmax(z, -1) + noise
        top, ids = noisy.topk(min(self.k, z.shape[-1]), -1)
        scores = top / self.temperature if self.weights == "noisy" else z.gather(-1, ids)
        on = torch.ones_like(token, dtype=torch.bool)
        return Step(ids[:, 0], on, ids, quantize(torch.softmax(scores, -1)))


@dataclass(frozen=True)
class SoftThinkingMixer:
    """Soft Thinking (arXiv 2505.15778), sampling only: every thinking step feeds Σ p(v) E[v].

    keep None: over the whole vocabulary. keep n: the authors' variant, the n largest of what top_k, top_p and min_p
    leave, renormalized; cold_steps steps in a row with entropy below cold_entropy then force the token stop_after.
    stop_after: the end of thinking, after which decoding is standard; None: never.
    """

    keep: int | None = None
    top_k: int = 30
    top_p: float = 0.95
    min_p: float = 0.001
    cold_entropy: float = 0.01
    cold_steps: int = 256
    stop_after: int | None = None

    kind: ClassVar[str] = "soft-thinking"

    @property
    def width(self) -> int:
        """The kept candidates, or 1 where the whole vocabulary is mixed."""
        return self.keep or 1

    def step(self, z, token, seed, position, table=None, *, rms=None, state=None) -> Step:
        """state counts the cold steps so far."""
        p = torch.softmax(z, -1)
        state = torch.zeros_like(token, dtype=torch.int32) if state is None else state
        on = _open(self.stop_after, state, torch.ones_like(token, dtype=torch.bool))
        if self.keep is None:
            return Step(token, on, *_itself(token), dense=p, state=_next(self.stop_after, state, token))
        if self.stop_after is not None:
            entropy = -(p * torch.log_softmax(z, -1)).sum(-1)
            cold = torch.where(entropy < self.cold_entropy, state + 1, 0).to(torch.int32)
            state = torch.where(on, cold, state)
            token = torch.where(on & (cold >= self.cold_steps), self.stop_after, token)
        top_p, top_k = torch.full_like(p[:, 0], self.top_p), torch.full_like(token, self.top_k)
        kept = restrict(p, top_p, top_k)
        kept = kept * (kept >= self.min_p * p.amax(-1, keepdim=True))
        weight, ids = kept.topk(min(self.keep, p.shape[-1]), -1)
        weights = quantize(weight / weight.sum(-1, keepdim=True))
        return Step(token, on, ids, weights, state=_next(self.stop_after, state, token))


def _one_of(mixer: Any, name: str, known: tuple[str, ...]) -> None:
    if getattr(mixer, name) not in known:
        raise unknown_name(name, getattr(mixer, name), known, where=f"mixer {mixer.kind}: {name}")


_ALL = (NoMixer, NeighborMixer, GaussianMixer, GumbelMixer, SoftThinkingMixer)
_KINDS: dict[str, Callable[..., Mixer]] = {m.kind: m for m in _ALL}


def mixer_from(settings: Mapping[str, Any]) -> Mixer:
    """The mixer that {kind, …its settings} describes. Raises UserError for an unknown kind or setting."""
    rest = dict(settings)
    kind = rest.pop("kind", "none")
    if kind not in _KINDS:
        raise unknown_name("input mixer", kind, _KINDS, where="mixer: kind")
    try:
        return _KINDS[kind](**rest)
    except TypeError as e:
        raise UserError(f"these settings don't fit: {e}", where=f"mixer {kind}") from None
