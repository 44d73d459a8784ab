"""What an input mixer is: from scaled logits to what is written, and to what is fed to the next step.

| letter | meaning | shape |
|---|---|---|
| z̃ | scaled logits (Eq. 2) | (B, V) |
| v* | anchor, argmax z̃ (Eq. 6) | (B,) |
| C | the anchor and its k−1 nearest neighbors, anchor first (Eq. 7–8) | (B, k) |
| α | softmax of z̃ over C (Eq. 9) | (B, k) |
| ẽ | Σ_c α(c) E[c] (Eq. 10) | (B, d) |
| m | mixing mask, Bernoulli(ρ) per sequence and step (Eq. 11) | (B,) |

A mixer turns (z̃, sampled token, seed, position) into a `Step`; `feed` turns the step into vectors. Rollout and decoding
use the same object, in every engine, and the trainer replays with the same `blend` and `add_noise`.

Departure, and why: α is cut to multiples of 2⁻¹⁶ before it is used, the first candidate taking the remainder: the
weights still sum to exactly 1, what is recorded is exactly what was fed, and a record needs two bytes a neighbor. A
weight changes by at most (k−1)·2⁻¹⁶, far below bfloat16's 2⁻⁹.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ngrpo.errors import unknown_name
from ngrpo.method import rng

WEIGHT_SCALE = 1 << 16  # weights are multiples of 1/WEIGHT_SCALE
_WHOLE = torch.tensor(WEIGHT_SCALE, dtype=torch.int32)  # a CPU's number is an argument of a GPU's kernel
_PIECE = 1024  # of a row of logits, see `largest`
ENDED = -1  # state of a sequence whose thinking has ended: no more mixing


class Step(NamedTuple):
    """One step of a batch: what is written, and what is fed next."""

    token: Tensor  # (B,) int64, the token written down
    on: Tensor  # (B,) bool, where a mixture is fed; elsewhere E[token]
    ids: Tensor  # (B, k) int64, the candidates, anchor first
    weights: Tensor  # (B, k) int32, their weights as multiples of 1/WEIGHT_SCALE; every row sums to WEIGHT_SCALE
    sigma: Tensor | None = None  # (B,) float32, Gaussian noise added to what is fed, keyed by (seed, position)
    dense: Tensor | None = None  # (B, V) float32, weights over the whole vocabulary, in place of ids and weights
    state: Tensor | None = None  # (B,) int32, what the mixer wants back at the sequence's next step
    likelihood: Tensor | None = None  # (B,) float32, log-likelihood of what is fed, where it isn't the token's
    scores: Tensor | None = None  # (B, k) float32, what that likelihood needs besides the candidates' log-probs
    relative: bool = False  # whether sigma is in units of the root mean square of what is fed: see `measured`


class Mixer(ABC):
    """An input mixer: what it needs, said once, so that no engine, stage or plan asks for its kind.

    A new one is a frozen dataclass in a file of its own, named after its kind (`ngrpo.method.mixers`), and its
    configuration in `ngrpo.study.mixing`. Override what differs.
    """

    kind: ClassVar[str]
    mixes: ClassVar[bool] = True  # False: feeds E[token] at every step, whatever its settings
    redraws: ClassVar[bool] = False  # writes a token of its own, though it mixes nothing
    needs_table: ClassVar[bool] = False  # looks neighbors up: has a `metric`, and `width` is the table's least k
    needs_rms: ClassVar[bool] = False  # wants the root mean square of E's rows
    mixes_its_end: ClassVar[bool] = False  # whether the step that writes `stop_after` still mixes
    metric: str | None = None  # of the table that it needs
    stop_after: int | None = None  # a token from which on nothing is mixed

    @property
    def width(self) -> int:
        """k, the most candidates of a step."""
        return 1

    @property
    def dense(self) -> bool:
        """Whether steps weigh the whole vocabulary, which no record holds: an interrupted response can't go on."""
        return False

    @property
    def stateful(self) -> bool:
        """Whether its steps say, and want to be told at the next, how far the sequence is: those that know an end do.

        A mixer that counts anything else overrides this.
        """
        return getattr(self, "stop_after", None) is not None

    @property
    def replayed(self) -> bool:
        """Whether training feeds again what the rollout fed; False: it can't, or draws the noise anew."""
        return not self.dense

    @property
    def own_likelihood(self) -> bool:
        """Whether a mixed step's log-likelihood isn't its token's log-prob: then there is a `likelihood`."""
        return False

    @property
    def deterministic_text(self) -> bool:
        """Whether a prompt has one response whatever the seed: no step's text or input depends on a draw."""
        return False

    @property
    def writes_first_candidate(self) -> bool:
        """Whether a mixed step writes its first candidate."""
        return False

    def gate(self, seed: Tensor, position: Tensor) -> Tensor:
        """Whether steps mix as long as nothing has ended the mixing (Eq. 11): seed, position (B,) int64 → (B,) bool."""
        return torch.full_like(position, self.mixes, dtype=torch.bool)

    def mixed_steps(self, tokens: Tensor, seed: int, start: int) -> Tensor:
        """Which steps of a response feed anything but their token's embedding: what its record must hold.

        A pure function of the response's tokens (T,), its request's seed and the position of its first token →
        (T − 1,) bool; the last token feeds nothing. All False where no record can hold what was fed.
        """
        fed = tokens[:-1]
        if self.dense:
            return torch.zeros_like(fed, dtype=torch.bool)
        position = torch.arange(len(fed), dtype=torch.int64) + start
        on = self.gate(torch.full_like(position, seed), position)
        if self.stop_after is None:
            return on
        ends = fed == self.stop_after
        over = ends.cumsum(0) - ends.long() > 0 if self.mixes_its_end else ends.cumsum(0) > 0
        return on & ~over

    def candidates(self, anchor: Tensor, table: Tensor) -> Tensor:
        """What is fed at steps with these anchors (M,), where the table (V, k) says it → (M, k), the anchor first."""
        return table[anchor].long()

    def likelihood(self, log_p: Tensor, scores: Tensor | None = None) -> Tensor:
        """The log-likelihood of mixed steps, for rollout, trainer and reference alike.

        log_p (M, k): log-probs of their candidates under the policy, of the whole distribution; scores (M, k): the
        steps' own, as the rollout had them → (M,). Differentiable with respect to log_p.
        """
        raise NotImplementedError(f"{self.kind} has no likelihood of its own")

    @abstractmethod
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
        square of each row of E, if needed. state (B,) int32: the last step's, 0 at a sequence's start; None where the
        mixer isn't `stateful`.
        """

    def _check_choice(self, name: str, known: tuple[str, ...]) -> None:
        """Raise UserError unless the setting `name` is one of these."""
        if getattr(self, name) not in known:
            raise unknown_name(name, getattr(self, name), known, where=f"mixer {self.kind}: {name}")


def gate_open(stop: int | None, state: Tensor | None, on: Tensor) -> Tensor:
    """The gate `on` (B,), closed in sequences that have written the token `stop`."""
    return on if stop is None or state is None else on & (state != ENDED)


def before_end(stop: int | None, token: Tensor, on: Tensor) -> Tensor:
    """The gate `on` (B,), closed where the token (B,) that is being written is `stop`: that step feeds E[stop]."""
    return on if stop is None else on & (token != stop)


def next_state(stop: int | None, state: Tensor | None, token: Tensor) -> Tensor | None:
    """The next step's state (B,): ENDED from the token `stop` on."""
    if stop is None:
        return None
    before = torch.zeros_like(token, dtype=torch.int32) if state is None else state
    return before.masked_fill(token == stop, ENDED)


def only_token(token: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates (B, 1) and weights (B, 1) of an input that is E[token]."""
    return token[:, None].long(), torch.full_like(token, WEIGHT_SCALE, dtype=torch.int32)[:, None]


def largest(z: Tensor) -> Tensor:
    """argmax of z (B, V), the first among equals: (B,) int64.

    On a CPU by the maxima of pieces, which torch finds three times faster than where they are.
    """
    V = z.shape[-1]
    if z.device.type != "cpu" or V < 2 * _PIECE:
        return z.argmax(-1)
    whole = V // _PIECE * _PIECE
    maxima = [z[:, :whole].unflatten(-1, (-1, _PIECE)).amax(-1)]
    if whole < V:
        maxima.append(z[:, whole:].amax(-1, keepdim=True))
    at = torch.cat(maxima, -1).argmax(-1, keepdim=True) * _PIECE + torch.arange(_PIECE)
    at.clamp_(max=V - 1)
    return at.gather(-1, z.gather(-1, at).argmax(-1, keepdim=True)).squeeze(-1)


def quantize(alpha: Tensor, *, descending: bool = False) -> Tensor:
    """Weights (B, k) that sum to 1 → int32 ones that sum to WEIGHT_SCALE; the first takes what cutting leaves.

    descending: no weight is larger than the first, and so none of the others above 1/2.
    """
    scaled = alpha * WEIGHT_SCALE
    weights = (scaled if descending else scaled.clamp(max=WEIGHT_SCALE - 1)).to(torch.int32)  # which cuts
    torch.sub(_WHOLE, weights[:, 1:].sum(-1, dtype=torch.int32), out=weights[:, 0])
    return weights


def blend(rows: Tensor, weights: Tensor) -> Tensor:
    """ẽ = Σ α(c) E[c] (Eq. 10): rows (M, k, d) of E, weights (M, k) → (M, d) in rows' dtype, summed in float32.

    Differentiable with respect to rows; the weights are constants (paper §3.3).
    """
    alpha = weights * (1.0 / WEIGHT_SCALE)  # float32
    return (alpha.unsqueeze(-1) * rows).sum(-2, dtype=torch.float32).to(rows.dtype)


def weighted_sum(weights: Tensor, E: Tensor) -> Tensor:
    """Σ w(v) E[v]: float32 (B, V) and (V, d) of any type → (B, d) float32.

    A bfloat16 E, 2 GB of it at 7B, is not copied: it is multiplied by the weights' first bits and by what these leave,
    16 bits together. That is off by at most 2⁻⁸ of Σ w(v) |E[v]|, twice what rounding the result to bfloat16 costs.
    """
    if E.dtype != torch.bfloat16:  # float16 doesn't hold small weights
        return weights @ E.float()
    high = weights.bfloat16()
    low = (weights - high.float()).bfloat16()
    return (high @ E).float().add_(low @ E)


def add_noise(rows: Tensor, sigma: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """Rows (M, d) plus σ·N(0, I), σ (M,), drawn by (seed, position) (M,); summed in float32, in rows' dtype."""
    noise = sigma[:, None] * rng.normal(seed, position, rows.shape[1])
    return (rows.float() + noise).to(rows.dtype)


def measured(step: Step, lookup: Callable[[Tensor], Tensor]) -> Step:
    """The step with its noise in absolute terms. lookup: ids (M,) → rows of E (M, d)."""
    if step.sigma is None or not step.relative:
        return step
    fed = blend(lookup(step.ids.flatten()).view(*step.ids.shape, -1), step.weights)
    return step._replace(sigma=step.sigma * fed.float().square().mean(-1).sqrt(), relative=False)


def feed(
    step: Step, seed: Tensor, position: Tensor, lookup: Callable[[Tensor], Tensor], mixture: Callable[[Tensor], Tensor]
) -> Tensor:
    """The vectors (B, d) that a step (as `measured` leaves it) feeds where it is on.

    seed, position (B,): as the step's. lookup: ids (M,) → rows of E (M, d). mixture: weights over the vocabulary (B, V)
    → Σ p(v) E[v] (B, d).
    """
    if step.dense is not None:
        return mixture(step.dense)
    fed = blend(lookup(step.ids.flatten()).view(*step.ids.shape, -1), step.weights)
    return fed if step.sigma is None else add_noise(fed, step.sigma, seed, position)
