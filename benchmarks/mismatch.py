"""How often the guard against systematic faults errs: `make simulate-mismatch` prints it.

Rounding is that measured between sglang in bfloat16 and an autocast trainer (SmolLM2-135M, ρ = 0.1, τ = 0.7, CPU;
bf16_noise.npz holds rollout − trainer), scaled to means published for GPUs, with tails to 10 nats that a CPU doesn't
show. A graph that doesn't mix is the same responses replayed without their records; which of their tokens came after a
mixed step wasn't kept, and is taken to be those that the records change most: an idealization. A wrong table is 24
other responses of that model, replayed in float32 with random tokens in place of the neighbors that their records hold
(wrong_table.npz: the difference that makes; after a mixed input 0.093 nats on average, where dropping the records makes
0.070), with that rounding. Another temperature is that of a made-up softmax. What records say themselves, stale weights
among it, is another guard's (`benchmarks/record_faults.py`), and so is what the engine's model read, by which a graph
that doesn't mix and a wrong table are found whatever these statistics say (`benchmarks/sketches.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ngrpo.statistics.mismatch import LIMITS, MEAN, faults, measures, sums

MEANS = (0.01, 0.02, 0.03, 0.04, 0.064)
RUNS, STEPS, RESPONSES, TOKENS, POOL = 1000, 629, 256, 3906, 600
SIZES = (8, 32, 64, 128, RESPONSES)
LIMIT = LIMITS["bfloat16"]
MEASURED = np.load(Path(__file__).with_name("bf16_noise.npz"))
WRONG_TABLE = np.load(Path(__file__).with_name("wrong_table.npz"))


def rounding(shape: tuple[int, ...], mean: float, rng: np.random.Generator) -> np.ndarray:
    """Differences of healthy tokens; one in a thousand lies between 0.5 and 10 nats."""
    noise = MEASURED["noise"].astype(np.float64)
    d = rng.choice(noise, shape) * (mean / np.abs(noise).mean())
    size = np.exp(rng.uniform(np.log(0.5), np.log(10), shape)) * np.where(rng.random(shape) < 0.8, 1, -1)
    return np.where(rng.random(shape) < 1e-3, size, d)


def responses(count: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """`sums` of healthy responses, a tenth of whose inputs is mixed."""
    parts = []
    for _ in range(0, count, 50):
        shape = (50, TOKENS)
        rollout = -rng.exponential(0.5, shape) * (rng.random(shape) < 0.6)
        mixed = rng.random(shape) < 0.1
        parts.append(sums(rollout, rollout - rounding(shape, mean, rng), np.ones(shape, bool), mixed))
    return np.concatenate(parts)


def healthy(runs: int, rng: np.random.Generator) -> int:
    """Runs of so many that stop. A run's rounding grows from the smallest published mean to the largest."""
    pools = [responses(POOL, mean, rng) for mean in MEANS]
    stopped = 0
    for run in range(runs):
        parts = [pools[step * len(MEANS) // STEPS][rng.integers(0, POOL, RESPONSES)] for step in range(STEPS)]
        values = measures(np.stack(parts))
        means = values[MEAN].tolist()
        steps = [{name: float(value[step]) for name, value in values.items()} for step in range(STEPS)]
        stopped += any(faults(row, LIMIT, means[max(0, at - 20) : at]) for at, row in enumerate(steps))
        if run % 100 == 99:
            print(f"healthy: {stopped} of {run + 1} runs stopped", flush=True)
    return stopped


def drawn(
    measured: Mapping[str, np.ndarray], name: str, rng: np.random.Generator, responses: int = RESPONSES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A step of measured responses, drawn again and again: differences, own inputs mixed, written; each (B, 200)."""
    ends = np.cumsum(measured["lengths"].astype(int))
    shape, rows = (responses, 200), rng.integers(0, len(ends), responses)
    d, own, written = np.zeros(shape), np.zeros(shape, bool), np.zeros(shape, bool)
    for at, row in enumerate(rows):
        n = int(measured["lengths"][row])
        part = slice(ends[row] - n, ends[row])
        d[at, :n], own[at, :n], written[at, :n] = measured[name][part], measured["own"][part], True
    return d, own, written


def unmixed(rng: np.random.Generator, responses: int = RESPONSES) -> bool:
    """Whether a step of short responses stops in which the graph didn't mix."""
    d, own, written = drawn(MEASURED, "unmixed", rng, responses)
    d += np.where(rng.random(d.shape) < 1e-3, rounding(d.shape, 0.03, rng), 0.0)
    rollout = -rng.exponential(0.5, d.shape)
    return bool(faults(values_of(rollout, rollout - d, written, own), LIMIT))


def wrong_table(rng: np.random.Generator, responses: int = RESPONSES, share: float = 1.0) -> bool:
    """Whether a step of short responses stops in which other tokens were fed than recorded. share: of the effect."""
    d, own, written = drawn(WRONG_TABLE, "difference", rng, responses)
    d = share * d + rounding(d.shape, 0.03, rng)
    rollout = -rng.exponential(0.5, d.shape)
    return bool(faults(values_of(rollout, rollout - d, written, own), LIMIT))


def hotter(rng: np.random.Generator, responses: int = RESPONSES, tau: float = 0.7, other: float = 1.0) -> bool:
    """Whether a step stops that is drawn at one temperature and replayed at another."""
    z = rng.normal(0, 1, (responses, 60, 40)) * rng.choice([1.0, 4.0], (responses, 60, 1), p=[0.4, 0.6])
    log_prob = [z / t - np.log(np.exp(z / t).sum(-1, keepdims=True)) for t in (tau, other)]
    token = (log_prob[0] + rng.gumbel(size=z.shape)).argmax(-1)[..., None]
    rollout, trainer = (np.take_along_axis(p, token, -1)[..., 0] for p in log_prob)
    trainer = trainer - rounding(trainer.shape, 0.03, rng)
    own = rng.random(trainer.shape) < 0.1
    return bool(faults(values_of(rollout, trainer, np.ones_like(own), own), LIMIT))


def values_of(rollout: np.ndarray, trainer: np.ndarray, written: np.ndarray, mixed: np.ndarray) -> dict[str, float]:
    """A step's measures."""
    return {name: float(value) for name, value in measures(sums(rollout, trainer, written, mixed)).items()}


FAULTS = {"a graph that doesn't mix": unmixed, "a wrong table": wrong_table, "τ 0.7 replayed at 1.0": hotter}


def main(runs: int = RUNS, steps: int = 300) -> None:
    """Print the figures."""
    rng = np.random.default_rng(15)
    for name, stops in (
        ("a graph that doesn't mix", unmixed),
        ("a wrong table", wrong_table),
        ("τ 0.7 at 1.0", hotter),
    ):
        shares = (f"{sum(stops(rng, n) for _ in range(steps)) / steps:.1%} of {n}" for n in SIZES)
        print(f"{name}: found in one step by responses: {', '.join(shares)}", flush=True)
    print(f"nothing wrong: stopped {sum(wrong_table(rng, share=0) for _ in range(steps))} of {steps} steps")
    print(f"τ 0.7 replayed at 0.7: stopped {sum(hotter(rng, other=0.7) for _ in range(steps))} of {steps} steps")
    print(f"healthy: {healthy(runs, rng)} of {runs} runs of {STEPS} steps × {RESPONSES * TOKENS:,} tokens stopped")


if __name__ == "__main__":
    main()
