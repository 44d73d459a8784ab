"""Made-up steps of a training in bfloat16, healthy or with a systematic fault, to hold `mismatch.LIMITS` to.

Rounding is that measured between sglang in bfloat16 and an autocast trainer on SmolLM2-135M (ρ = 0.1, τ = 0.7, CPU),
scaled to the means that are published for GPUs, with tails to 10 nats that a CPU doesn't show. What a fault adds was
measured in float32 on the same model, whose rounding is nothing beside it. Both are in `MEASURED`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ngrpo.statistics.mismatch import sums

MEASURED = Path(__file__).with_name("bf16_measured.npz")
FAULTS = ("unmixed", "wrong table", "wrong temperature", "stale weights")
TAIL = (0.5, 10.0)
"""Nats between which a tail's differences lie, evenly in their logarithm."""


@dataclass(frozen=True)
class Rounding:
    """Healthy rounding. mean: of |d|, without tails; tail: the share of tokens in the tail."""

    mean: float = 0.03
    tail: float = 1e-3

    def draw(self, measured: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Differences of this shape. measured: those of one machine."""
        d = rng.choice(measured, shape) * (self.mean / np.abs(measured).mean())
        size = np.exp(rng.uniform(np.log(TAIL[0]), np.log(TAIL[1]), shape)) * np.where(rng.random(shape) < 0.8, 1, -1)
        return np.where(rng.random(shape) < self.tail, size, d)


def response_sums(
    count: int, rng: np.random.Generator, rounding: Rounding, fault: str | None = None, tokens: int = 128
) -> np.ndarray:
    """`mismatch.sums` of so many made-up responses of so many tokens, with a fault of `FAULTS` or none."""
    with np.load(MEASURED) as files:
        noise, texts = files["noise"], {name: files[name] for name in files.files}
    rows = rng.integers(0, len(texts["log_prob"]), (count, -(-tokens // texts["log_prob"].shape[1])))
    rollout, mixed = (texts[name][rows].reshape(count, -1)[:, :tokens] for name in ("log_prob", "mixed"))
    trainer = rollout - rounding.draw(noise, rollout.shape, rng)
    if fault is not None:
        trainer = trainer + texts[fault][rows].reshape(count, -1)[:, :tokens]
    return sums(rollout, trainer, np.ones_like(mixed), mixed)
