"""The actor compares each mixed input with what the engine's model read of it, wherever it lies in a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tiny_actor import (
    MASK,
    RECORDS,
    TENSORS,
    B,
    D,
    P,
    make_actor,
    make_data,
    make_model,
    noise_record,
    plain_inputs,
    process_group,  # noqa: F401
)

from ngrpo.method.records import Noise, Record
from ngrpo.method.sketches import signs

pytestmark = pytest.mark.train


def _read(records: list[Record], *, but: int = -1) -> list[Record]:
    """The records with sketches of what an engine's model reads; but: the row where it reads tokens alone."""
    E = make_model()
    with torch.no_grad():
        fed, plain = plain_inputs(E, records), plain_inputs(E, [])
    sketches = [
        ((plain if row == but else fed)[row, P : P + r.length - 1][torch.from_numpy(r.mixed())] @ signs(D)).numpy()
        for row, r in enumerate(records)
    ]
    return [replace(r, sketches=read) for r, read in zip(records, sketches, strict=True)]


def _deviations(records: list[Record], *, reorder: bool = False, **meta):
    actor, data = make_actor(), make_data(records)
    data.meta_info |= meta
    if reorder:
        data.reorder(torch.randperm(B, generator=torch.Generator().manual_seed(3)))
    actor.compute_log_prob(data)
    return actor.mixer.deviations


NOISY = [noise_record(row, n, Noise(np.float32([0.2]))) for row, n in enumerate(MASK.sum(-1).tolist())]


@pytest.mark.parametrize("records", [RECORDS, NOISY, [*RECORDS[:4], *NOISY[4:]]], ids=["mixtures", "noise", "both"])
def test_every_mixed_input_is_compared_with_what_the_engines_model_read(records) -> None:
    """Wherever it lies in the batch; one response whose inputs its model read otherwise is named by its seed."""
    mixed = sum(int(r.mixed().sum()) for r in records)
    for how in ({}, {"reorder": True, "use_dynamic_bsz": True}):
        seen = _deviations(_read(records), **how)
        assert seen.count == mixed
        assert seen.largest < 1e-5
        for row in (2, 6):
            seen = _deviations(_read(records, but=row), **how)
            assert (seen.count, seen.seed) == (mixed, row)
            assert seen.largest > 0.1
    rows, seeds = seen.rows(B)
    assert (rows[:, 0].sum(), rows[:, 1].max(), seeds.tolist()) == (seen.count, seen.largest, [6] * B)


def test_inputs_without_sketches_and_those_of_other_passes_are_not_compared() -> None:
    from ngrpo.training.verl.actor import Deviations

    assert _deviations(RECORDS) == Deviations()
    actor, data = make_actor(), make_data(_read(RECORDS))
    actor.actor_optimizer = None  # verl's reference has none, and other weights than the engine
    actor.compute_log_prob(data)
    assert actor.mixer.deviations is None


def test_a_sketch_that_is_no_number_is_far_away() -> None:
    broken = [replace(r, sketches=np.full_like(r.sketches, np.nan)) for r in _read(RECORDS)]
    assert _deviations(broken).largest == float("inf")


def test_sequence_parallel_slices_hold_the_mixtures_of_their_tokens(monkeypatch) -> None:
    from verl.utils import ulysses

    from ngrpo.training.verl.actor import KEY, remove_padding, scatter

    tensors = {k: v for k, v in TENSORS.items() if k != KEY}
    inputs = scatter(tensors, np.array([r.pack() for r in _read(RECORDS)], dtype=object))
    keep = TENSORS["attention_mask"].bool()
    inputs.ids[:, 0] = TENSORS["input_ids"][inputs.mask]  # so that a candidate names its token
    for parts in (1, 2, 3):
        seen = 0
        for part in range(parts):
            monkeypatch.setattr(ulysses, "get_ulysses_sequence_parallel_world_size", lambda group=None, n=parts: n)
            monkeypatch.setattr(dist, "get_world_size", lambda group=None, n=parts: n)
            monkeypatch.setattr(ulysses, "get_ulysses_sequence_parallel_rank", lambda group=None, r=part: r)
            packed, _, _ = ulysses.ulysses_pad_and_slice_inputs(TENSORS["input_ids"][keep][None], None, parts)
            cut = remove_padding(inputs, keep, parts, part)
            assert cut.mask.shape == packed.shape
            assert torch.equal(cut.ids[:, 0], packed[cut.mask])
            places, sketches, _ = cut.sketches
            assert torch.equal(places, cut.mask)
            assert torch.equal(sketches, inputs.sketches[1][seen : seen + len(cut.ids)])
            seen += len(cut.ids)
        assert seen == len(inputs.ids)
