"""How surely a mixed input that the engine's model didn't read is found: a part of `make simulate-mismatch`.

Inputs are made up, of a trained embedding's size of entries; the engine's model reads them in bfloat16, the trainer
feeds them in float32 or bfloat16, and their sketches are taken as engine and trainer take them. What a fault does to a
mixed input was measured on SmolLM2-135M (ρ = 0.1, τ = 0.7, k = 3, 24 responses): mixed_inputs.npz has each mixed
input's distance, by its length, from its anchor's embedding (a graph that doesn't mix) and from the same mixture of
random tokens (a wrong table). Most mixtures are nearly their anchor, so a fault changes only some of the inputs.
"""

from pathlib import Path

import numpy as np
import torch

from ngrpo.method.sketches import SIZE, deviations, signs
from ngrpo.statistics.mismatch import LIMITS

WIDTHS, INPUTS, ENTRY = (896, 1536, 3584), 1_000_000, 0.03
RUNS, STEPS, MIXED = 1000, 629, 100_000
LIMIT = LIMITS["bfloat16"].inputs
MEASURED = np.load(Path(__file__).with_name("mixed_inputs.npz"))


def largest(d: int, inputs: int, fed: torch.dtype) -> float:
    """The largest deviation of so many healthy inputs of this width."""
    generator, R, most = torch.Generator().manual_seed(d), signs(d), 0.0
    read = R.bfloat16()
    for _ in range(0, inputs, 10_000):
        x = ENTRY * torch.randn(10_000, d, generator=generator)
        most = max(most, float(deviations(x.to(fed), x.bfloat16() @ read, R).max()))
    return most


def bound(length: float = 8.0) -> float:
    """The chance, at most, that rounding takes an input beyond the limit in bfloat16.

    Hoeffding's inequality, twice: a sketch's number is beyond `length` times the input's length, or else its own
    rounding (2⁻⁹ of that) leaves something of the limit, which the sum of the entries' roundings (2⁻⁹ each) must reach.
    """
    left = LIMIT - length * 2.0**-9
    return float(2 * SIZE * (np.exp(-(length**2) / 2) + np.exp(-(left**2) * 2.0**17)))


def power(fault: str, mixed: int, rng: np.random.Generator, batches: int = 20_000) -> float:
    """The share of batches with so many mixed inputs that stop at a fault: unmixed | wrong_table."""
    distance = rng.choice(MEASURED[fault].astype(np.float64), (batches, mixed))
    seen = distance * np.sqrt(rng.chisquare(SIZE, (batches, mixed)) / SIZE)
    return float((seen > LIMIT).any(1).mean())


def main(inputs: int = INPUTS) -> None:
    """Print the figures."""
    for fed in (torch.float32, torch.bfloat16):
        for d in WIDTHS:
            name = str(fed).removeprefix("torch.")
            print(
                f"nothing is wrong, d = {d}, fed in {name}: at most {largest(d, inputs, fed):.4f} of {inputs:,} inputs"
            )
    expected = bound() * RUNS * STEPS * MIXED
    print(f"stops of {RUNS} runs of {STEPS} steps with {MIXED:,} mixed inputs: {expected:.2g} expected at most")
    rng = np.random.default_rng(15)
    for fault in ("unmixed", "wrong_table"):
        changed = float((MEASURED[fault] > LIMIT).mean())
        shares = ", ".join(f"{100 * power(fault, n, rng):.1f} % of {n}" for n in (5, 10, 20, 30, 50, 100))
        print(f"{fault}: {changed:.0%} of mixed inputs are beyond {LIMIT}; found in one step by mixed inputs: {shares}")


if __name__ == "__main__":
    main()
