"""Records are compact, come back as they went in, and stay with their response."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ngrpo.errors import UserError
from ngrpo.method.mixers import WEIGHT_SCALE, GaussianMixer, GumbelMixer, NeighborMixer
from ngrpo.method.records import FedStep, Noise, Origin, Record, gather, gather_noise, gather_scores, gather_sketches
from ngrpo.method.sketches import SIZE

pytestmark = pytest.mark.train

ORIGIN = Origin(2**61, 17, b"settings", -5)


def _record(length: int, k: int, share: float, seed: int) -> tuple[list[int], Record]:
    r = np.random.default_rng(seed)
    tokens = r.integers(0, 151_936, length).tolist()
    index = np.flatnonzero(r.random(length) < share)
    ids = r.integers(0, 151_936, (len(index), k))
    rest = r.integers(0, WEIGHT_SCALE // k, (len(index), k - 1))
    weights = np.concatenate([WEIGHT_SCALE - rest.sum(-1, keepdims=True), rest], 1)
    return tokens, Record.of(tokens, index.tolist(), ids.tolist(), weights.tolist(), k=k, origin=ORIGIN)


@given(st.integers(1, 300), st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_bytes_come_back_as_the_same_record(length: int, k: int, share: float, seed: int) -> None:
    tokens, record = _record(length, k, share, seed)
    back = Record.unpack(record.pack())
    for field in ("index", "ids", "weights"):
        assert np.array_equal(getattr(back, field), getattr(record, field))
    assert back.origin == ORIGIN
    back.check(tokens, ORIGIN.seed)


def test_the_last_token_feeds_nothing_and_is_left_out() -> None:
    record = Record.of([5, 6, 7], [0, 2], [[1, 2]] * 2, [[WEIGHT_SCALE, 0]] * 2, k=2, origin=ORIGIN)
    assert record.index.tolist() == [0]


def test_records_of_long_responses_keep_their_positions() -> None:
    record = Record.of([1] * 70_000, [69_000], [[1]], [[WEIGHT_SCALE]], k=1, origin=ORIGIN)
    assert Record.unpack(record.pack()).index.tolist() == [69_000]


def test_a_record_refuses_another_response() -> None:
    tokens, record = _record(50, 3, 0.2, 0)
    other = [*tokens[:-1], tokens[-1] + 1]
    for wrong in (other, tokens[:-1], [*tokens, 0], tokens[::-1]):
        with pytest.raises(UserError, match="another response"):
            record.check(wrong, ORIGIN.seed)
    with pytest.raises(UserError, match="another response"):
        record.check(tokens, ORIGIN.seed + 1)
    record.check(tokens, ORIGIN.seed)


@pytest.mark.parametrize("harm", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:10], lambda b: b"XXXX" + b[4:]])
def test_bytes_that_are_no_whole_record_are_refused(harm) -> None:
    _, record = _record(50, 3, 0.5, 0)
    with pytest.raises(UserError):
        Record.unpack(harm(record.pack()))


def test_gather_puts_candidates_in_the_masks_row_major_order() -> None:
    records = [_record(n, 3, share, n)[1] for n, share in ((10, 0.5), (8, 0.0), (12, 1.0))]
    mask, ids, weights = gather(records, 12)
    assert mask.shape == (3, 12)
    assert mask.sum() == len(ids) == len(weights) == sum(len(r.index) for r in records)
    rows, columns = mask.nonzero(as_tuple=True)
    for at, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        step = records[row].index.tolist().index(column)
        assert ids[at].tolist() == records[row].ids[step].tolist()
        assert weights[at].tolist() == records[row].weights[step].tolist()


def test_gather_refuses_mixed_widths_and_takes_empty_batches() -> None:
    with pytest.raises(UserError, match="different k"):
        gather([_record(9, 2, 1.0, 0)[1], _record(9, 3, 1.0, 0)[1]], 9)
    mask, ids, _ = gather([_record(9, 3, 0.0, 0)[1]], 9)
    assert not mask.any()
    assert ids.shape[0] == 0


def test_a_record_takes_an_eighth_of_dense_tensors_at_most() -> None:
    length, k = 8192, 3
    _, record = _record(length, k, 0.1, 0)
    dense = torch.zeros(length, k).nbytes + torch.zeros(length, k, dtype=torch.int64).nbytes
    assert len(record.pack()) <= dense / 8


@pytest.mark.parametrize("sigmas", [1, 4])
def test_noise_travels_as_a_key_and_comes_back_for_every_fed_step(sigmas: int) -> None:
    sigma = np.linspace(0.1, 0.4, sigmas, dtype=np.float32)
    record = Record.of([3, 1, 4, 1, 5], [], [], [], k=1, origin=ORIGIN, noise=Noise(sigma))
    back = Record.unpack(record.pack())
    assert (back.origin, back.noise.anew) == (ORIGIN, False)
    anew = Record.of([3, 1, 4], [], [], [], k=1, origin=Origin(0, 17), noise=Noise(sigma[:1], anew=True))
    anew = Record.unpack(anew.pack())
    assert (anew.origin.seed, anew.noise.anew) == (0, True)
    assert len({anew.noise_seed(purpose) for purpose in ("old", "reference", "update")}) == 3
    assert back.noise_seed("old") == back.noise_seed("update") == 2**61
    mask, seed, position, values = gather_noise([_record(5, 1, 0.0, 0)[1], back], 6)
    assert mask.tolist() == [[False] * 6, [True] * 4 + [False] * 2]
    assert seed.tolist() == [2**61] * 4
    assert position.tolist() == [17, 18, 19, 20]
    assert torch.equal(values, torch.from_numpy(np.broadcast_to(sigma, 4).copy()))
    assert len(record.pack()) < 96 + 4 * sigmas


@pytest.mark.parametrize("sketched", [False, True])
def test_scores_come_back_beside_their_steps(sketched: bool) -> None:
    """In the order of a batch's candidates; the last token's are left out, and one step without any leaves none."""
    tokens, own = [9, 8, 7, 6], [(0.5, -1.25, 2.0), (3.0, 0.0, -7.5), (1.0, 2.0, 3.0)]
    weights, sketch = [WEIGHT_SCALE - 2, 1, 1], (1.0,) * SIZE if sketched else ()
    steps = [FedStep(t, [t, 1, 2], weights, 0.0, sketch, -1.0, s) for t, s in zip((0, 2, 3), own, strict=True)]
    record = Record.of_steps(tokens, steps, GumbelMixer(k=3), ORIGIN)
    back = Record.unpack(record.pack())
    assert np.array_equal(back.scores, np.float32(own[:2]))
    assert (back.sketches is not None) == sketched
    plain, empty = _record(9, 3, 0.5, 0)[1], Record.of_steps([5], steps[:1], GumbelMixer(k=3), ORIGIN)
    assert torch.equal(gather_scores([empty, back, back]), torch.tensor(own[:2] * 2))
    assert gather_scores([plain]) is None
    without = Record.of_steps(tokens, [steps[0], steps[1]._replace(scores=())], GumbelMixer(k=3), ORIGIN)
    assert Record.unpack(without.pack()).scores is None


def test_a_batch_without_noise_has_none() -> None:
    assert gather_noise([_record(9, 3, 0.5, 0)[1]], 9) is None


def _sketched(tokens: list[int], at: list[int], sigma: float = 0.0, *, without: int = -1) -> Record:
    """A record of steps with the sketches (at, at, …); without: a step that has none."""
    ids = [[token] if sigma else [token, 1, 2] for token in tokens]
    weights = [WEIGHT_SCALE] if sigma else [WEIGHT_SCALE - 2, 1, 1]
    sketch = {t: () if t == without else (float(t),) * SIZE for t in at}
    steps = [FedStep(t, ids[t], weights, sigma, sketch[t]) for t in at]
    return Record.of_steps(tokens, steps, GaussianMixer() if sigma else NeighborMixer(0.5), ORIGIN)


def test_sketches_come_back_beside_their_steps() -> None:
    """Of mixtures and of noise; the last token feeds nothing, and one unknown sketch leaves none."""
    tokens = [9, 8, 7, 6, 5]
    for record, at in ((_sketched(tokens, [1, 3, 4]), [1, 3]), (_sketched(tokens, [0, 1, 2, 3, 4], 0.5), [0, 1, 2, 3])):
        back = Record.unpack(record.pack())
        assert back.sketches is not None
        assert np.flatnonzero(back.mixed()).tolist() == back.sketches[:, 0].tolist() == at
    assert _sketched(tokens, [1, 3], without=1).sketches is None
    assert Record.unpack(_sketched(tokens, [1, 3], without=1).pack()).sketches is None


def test_sketches_of_a_batch_lie_where_its_mixed_steps_do() -> None:
    records = [_sketched([9, 8, 7, 6], [2]), _record(5, 3, 0.5, 0)[1], _sketched([9, 8, 7], [0, 1])]
    gathered = gather_sketches(records, 6)
    assert gathered is not None
    mask, sketches, seed = gathered
    assert mask.nonzero().tolist() == [[0, 2], [2, 0], [2, 1]]
    assert sketches[:, 0].tolist() == [2.0, 0.0, 1.0]
    assert seed.tolist() == [ORIGIN.seed] * 3
    assert gather_sketches(records[1:2], 6) is None
