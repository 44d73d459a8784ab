"""What every engine promises: prompts + sampling + mixer → samples with log-probs and records.

1. Replay parity: with the same weights, feeding a sample's record back gives its log-probs again.
2. A mixer that never mixes gives what the engine gives without it.
3. A sample depends on its request's seed and prompt alone: not on batch, order or concurrency.
4. Log-probs are of the whole distribution at the sampling temperature, before top-p and top-k.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ngrpo.errors import UserError
from ngrpo.method.mixers import Mixer, NoMixer
from ngrpo.method.records import Record


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature > 0; top_p in (0, 1]; top_k ≤ 0 for no limit; max_new_tokens ≥ 1."""

    temperature: float
    max_new_tokens: int
    top_p: float = 1.0
    top_k: int = -1
    stop_token_ids: tuple[int, ...] = ()  # beside the model's own end-of-sequence tokens

    def __post_init__(self) -> None:
        for name, good in (
            ("temperature", self.temperature > 0),
            ("top_p", 0 < self.top_p <= 1),
            ("max_new_tokens", self.max_new_tokens >= 1),
        ):
            if not good:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"sampling: {name}")


@dataclass(frozen=True)
class Request:
    """One response to draw: prompt token ids (not empty), a seed in [0, 2**62), and the mixer of its steps."""

    prompt: tuple[int, ...]
    seed: int
    mixer: Mixer = field(default_factory=NoMixer)


@dataclass(frozen=True)
class Sample:
    """One response: token ids with the ending token, their log-probs, why it ended, and what was mixed."""

    tokens: list[int]
    log_probs: list[float]
    finish_reason: Literal["stop", "length"]
    record: Record


class Engine(Protocol):
    """A running engine; a context manager that releases what it holds."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sample]:
        """The samples, in the order of the requests."""
        ...

    def close(self) -> None:
        """Release processes and memory; harmless when called again."""
        ...

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *error: object) -> None: ...
