"""Every faulty record is found with certainty, and a healthy one of any mixer is never refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngrpo.method.fingerprint import fingerprint
from ngrpo.method.mixers import GaussianMixer, GumbelMixer, Mixer, NeighborMixer, NoMixer, SoftThinkingMixer
from ngrpo.method.record_checks import RecordCheck
from ngrpo.method.records import FedStep, Origin, Record, settings_digest
from ngrpo.method.sketches import SIZE

pytestmark = pytest.mark.train

V, STOP, START, TEMPERATURE = 50, 7, 12, 0.7
NEIGHBORS = (torch.arange(V)[:, None] + torch.tensor([0, 1, 2])) % V
TABLE = b"the table of these tests"
MIXERS: list[Mixer] = [
    NoMixer(),
    NeighborMixer(rho=0.3),
    NeighborMixer(rho=0.0),
    NeighborMixer(rho=1.0),
    NeighborMixer(rho=0.5, text="sampled", weights="probabilities", stop_after=STOP),
    NeighborMixer(rho=0.3, k=1),
    NeighborMixer(rho=0.5, fed="random"),
    GaussianMixer(),
    GaussianMixer(factor=0.0),
    GaussianMixer(replay=False, scope="row", k=3, temperature=0.7, rho=0.5, stop_after=STOP),
    GaussianMixer(scope="row", rho=0.4),
    GumbelMixer(),
    GumbelMixer(log_prob="noise"),
    GumbelMixer(chosen_by="probability", log_prob="noise"),
    GumbelMixer(weights="clean", text="sampled", stop_after=STOP),
    SoftThinkingMixer(keep=4, stop_after=STOP),
    SoftThinkingMixer(),
]


def drawn(mixer: Mixer, seed: int, length: int, start: int = START) -> tuple[list[int], Record]:
    """A response and its record, step by step, as an engine makes them."""
    generator, tokens, steps = torch.Generator().manual_seed(seed % 1000), [], []
    state, rms = torch.zeros(1, dtype=torch.int32), torch.full((V,), 0.5)
    rms[3] = 0.0  # a token whose row is zero gets no noise where that is relative to the row
    for at in range(length):
        z = 3 * torch.randn(1, V, generator=generator)
        token = torch.multinomial(torch.softmax(z, -1), 1, generator=generator)[:, 0]
        key = torch.tensor([seed]), torch.tensor([start + at])
        table = NEIGHBORS[:, : mixer.width] if mixer.needs_table else None
        step = mixer.step(z, token, *key, table, rms=rms, state=state)
        state = state if step.state is None else step.state
        tokens.append(int(step.token))
        if step.on[0]:
            sigma = 0.0 if step.sigma is None else float(step.sigma[0])
            scores = () if step.scores is None else tuple(step.scores[0].tolist())
            steps.append(FedStep(at, step.ids[0].tolist(), step.weights[0].tolist(), sigma, scores=scores))
    origin = Origin(seed, start, settings_digest(mixer, TEMPERATURE, TABLE), 99)
    return tokens, Record.of_steps(tokens, steps, mixer, origin)


def check_of(mixer: Mixer, **changes: object) -> RecordCheck:
    """The check of a run with this mixer."""
    table = NEIGHBORS[:, : mixer.width] if mixer.needs_table else None
    return replace(RecordCheck(mixer, TEMPERATURE, table, TABLE), **changes)


def fault(mixer: Mixer, record: Record | bytes, tokens: list[int], seed: int, **changes: object) -> str:
    """What the check says."""
    packed = record if isinstance(record, bytes) else record.pack()
    return check_of(mixer, **changes).fault(packed, np.array(tokens), seed, START, 99)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda m: f"{m.kind} {MIXERS.index(m)}")
@settings(max_examples=12)
@given(st.integers(0, 2**62 - 1), st.integers(1, 24))
def test_a_healthy_record_is_never_refused(mixer: Mixer, seed: int, length: int) -> None:
    """Whatever the seed, and however early the response ends or stops mixing."""
    tokens, record = drawn(mixer, seed, length)
    assert fault(mixer, record, tokens, seed) == ""


SEED, LENGTH = 1234, 60
MIXED = [m for m in MIXERS if m.mixes and not m.dense and check_of(m) and drawn(m, SEED, LENGTH)[1].mixed().any()]


def without(record: Record, keep: np.ndarray) -> Record:
    """The record with some of its steps."""
    cut = replace(record, index=record.index[keep], ids=record.ids[keep], weights=record.weights[keep])
    cut = cut if record.scores is None else replace(cut, scores=record.scores[keep])
    if record.noise is None:
        return cut
    sigma = np.broadcast_to(record.noise.sigma, record.length - 1).copy()
    sigma[np.flatnonzero(sigma)[-1]] = 0
    return replace(cut, noise=replace(record.noise, sigma=sigma))


@pytest.mark.parametrize("mixer", MIXED, ids=lambda m: f"{m.kind} {MIXERS.index(m)}")
def test_every_faulty_record_is_found(mixer: Mixer) -> None:
    tokens, record = drawn(mixer, SEED, LENGTH)
    other_tokens, other = drawn(mixer, SEED + 1, LENGTH)
    assert fault(mixer, record, tokens, SEED) == ""
    none = Record.of(tokens, [], [], [], k=1, origin=record.origin)
    assert fault(mixer, b"", tokens, SEED) == "there is no record"
    assert "missing from the record" in fault(mixer, none, tokens, SEED)
    last = np.arange(len(record.index)) < len(record.index) - 1
    assert "missing from the record" in fault(mixer, without(record, last), tokens, SEED)
    assert "another response's" in fault(mixer, other, tokens, SEED)
    assert "of another text" in fault(mixer, record, other_tokens, SEED)
    assert "of another text" in fault(mixer, record, tokens[:-1], SEED)
    for origin in (record.origin._replace(start=START + 1), record.origin._replace(start=0)):
        assert "position" in fault(mixer, replace(record, origin=origin), tokens, SEED)
    assert "missed an update" in fault(mixer, replace(record, origin=record.origin._replace(weights=98)), tokens, SEED)
    assert "another mixer, temperature" in fault(mixer, record, tokens, SEED, temperature=1.0)
    few = np.zeros((record.mixed().sum() - 1, SIZE), np.float32)
    assert few.size == 0 or "sketches of" in fault(mixer, replace(record, sketches=few), tokens, SEED)
    for harmed in (record.pack()[:-1], record.pack()[:-30] + bytes(30), record.pack()[:20]):
        assert fault(mixer, harmed, tokens, SEED)


@pytest.mark.parametrize("mixer", [m for m in MIXED if m.kind == "neighbors" and m.stop_after is None], ids=str)
def test_shifted_steps_and_foreign_candidates_are_found(mixer: NeighborMixer) -> None:
    tokens, record = drawn(mixer, SEED, LENGTH)
    assert fault(mixer, replace(record, index=record.index + 1), tokens, SEED)
    rolled = replace(record, ids=np.roll(record.ids, 1, 0))  # each step has its predecessor's candidates
    assert "anchor" in fault(mixer, rolled, tokens, SEED)
    assert "another mixer, temperature" in fault(mixer, record, tokens, SEED, table_digest=b"another")
    if mixer.k > 1:
        other = (NEIGHBORS + torch.tensor([0, 5, 9]))[:, : mixer.k] % V
        assert "in the run's table" in fault(mixer, record, tokens, SEED, table=other)


def test_no_single_byte_of_a_record_can_change_unseen() -> None:
    tokens, record = drawn(MIXED[0], SEED, LENGTH)
    packed = record.pack()
    for at in range(len(packed)):
        harmed = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
        assert fault(MIXED[0], harmed, tokens, SEED)


def test_a_fingerprint_tells_any_other_matrix_and_not_its_layout() -> None:
    E = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        whole = int(fingerprint(E, dtype))
        parts = [fingerprint(E[:1234], dtype), fingerprint(torch.cat([E[1234:], torch.zeros(8, 6)]), dtype, 1234)]
        assert int(sum(parts)) == whole
        assert int(fingerprint(E.to(dtype), dtype)) == whole
        for change in (E.flip(0), E.flip(1), torch.where(torch.arange(5000)[:, None] == 17, E * 1.01, E)):
            assert int(fingerprint(change, dtype)) != whole
