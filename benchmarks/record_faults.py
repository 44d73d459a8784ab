"""How surely the first guard finds a faulty record: a part of `make simulate-mismatch`.

A step of 256 responses, each with its record as an engine makes it; one fault is put into one record (or, where a fault
is the engine's, into all), and `ngrpo.method.record_checks` looks at every record as training does. Weights miss one
update of Adam at the paper's learning rate, held in bfloat16: the smallest change that a step makes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ngrpo.method.fingerprint import fingerprint
from ngrpo.method.mixers import NeighborMixer
from ngrpo.method.neighbor_table import build
from ngrpo.method.record_checks import RecordCheck
from ngrpo.method.records import FedStep, Origin, Record

RESPONSES, TOKENS, START, STEPS = 256, 160, 40, 20
V, D, LEARNING_RATE = 2000, 64, 1e-6
MIXER, TEMPERATURE = NeighborMixer(rho=0.1), 0.7


class Step(NamedTuple):
    """A step's responses: their tokens (TOKENS,), seeds and records; fingerprint of the trainer's weights."""

    texts: list[np.ndarray]
    seeds: list[int]
    records: list[Record]
    weights: int


def embeddings(rng: np.random.Generator) -> Tensor:
    """A made-up embedding matrix (V, D), of a trained one's size of entries."""
    return torch.from_numpy(rng.normal(0, 0.03, (V, D)).astype(np.float32))


def check_of(E: Tensor) -> RecordCheck:
    """The check of a run whose table is that of E."""
    table = build(E, MIXER.k, "cosine")
    return RecordCheck(MIXER, TEMPERATURE, table.ids.long(), table.digest)


def made(check: RecordCheck, E: Tensor, rng: np.random.Generator) -> Step:
    """A healthy step."""
    known = int(fingerprint(E, torch.bfloat16))
    texts = [rng.integers(0, V, TOKENS) for _ in range(RESPONSES)]
    seeds = [int(seed) for seed in rng.integers(0, 2**62, RESPONSES)]
    records = []
    for text, seed in zip(texts, seeds, strict=True):
        mixed = np.flatnonzero(MIXER.mixed_steps(torch.from_numpy(text), seed, START).numpy())
        assert check.table is not None
        fed = [FedStep(int(at), check.table[text[at]].tolist(), [30_000, 2_000, 768], 0.0) for at in mixed]
        records.append(Record.of_steps(text.tolist(), fed, MIXER, Origin(seed, START, check.settings, known)))
    return Step(texts, seeds, records, known)


def is_refused(check: RecordCheck, step: Step) -> bool:
    """Whether any of its records is."""
    rows = zip(step.records, step.texts, step.seeds, strict=True)
    return any(check.fault(record.pack(), text, seed, START, step.weights) for record, text, seed in rows)


def dropped(step: Step, row: int) -> None:
    """One record forgets its steps."""
    r = step.records[row]
    step.records[row] = replace(r, index=r.index[:0], ids=r.ids[:0], weights=r.weights[:0])


def shortened(step: Step, row: int) -> None:
    """One record forgets its last step."""
    r = step.records[row]
    step.records[row] = replace(r, index=r.index[:-1], ids=r.ids[:-1], weights=r.weights[:-1])


def shifted(step: Step, row: int) -> None:
    """One record's steps come one later."""
    step.records[row] = replace(step.records[row], index=step.records[row].index + 1)


def foreign(step: Step, row: int) -> None:
    """One response has another's record."""
    step.records[row] = step.records[row - 1]


FAULTS: dict[str, Callable[[Step, int], None]] = {
    "one record dropped": dropped,
    "one record shortened": shortened,
    "one record shifted": shifted,
    "one record foreign": foreign,
}


def updated(E: Tensor, rng: np.random.Generator) -> Tensor:
    """E after Adam's first step at the paper's learning rate: each entry moves by about that."""
    return E + LEARNING_RATE * torch.from_numpy(rng.choice([-1.0, 1.0], E.shape).astype(np.float32))


def main(steps: int = STEPS) -> None:
    """Print how many of so many steps are refused, fault by fault, and without one."""
    rng = np.random.default_rng(15)
    E = embeddings(rng)
    check, other = check_of(E), check_of(embeddings(rng))
    for name, harm in FAULTS.items():
        refused = 0
        for _ in range(steps):
            step = made(check, E, rng)
            harm(step, int(np.argmax([len(r.index) for r in step.records])))
            refused += is_refused(check, step)
        print(f"{name} of {RESPONSES}: found in {refused} of {steps} steps")
    stale = 0
    for _ in range(steps):
        step = made(check, E, rng)
        stale += is_refused(check, step._replace(weights=int(fingerprint(updated(E, rng), torch.bfloat16))))
    print(f"the engine missed one update of {LEARNING_RATE:g}: found in {stale} of {steps} steps")
    foreign_table = sum(is_refused(check, made(other, E, rng)) for _ in range(steps))
    print(f"the engine looks another table up: found in {foreign_table} of {steps} steps")
    healthy = sum(is_refused(check, made(check, E, rng)) for _ in range(steps))
    print(f"nothing is wrong: refused {healthy} of {steps} steps")


if __name__ == "__main__":
    main()
