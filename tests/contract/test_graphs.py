"""Decoding through CUDA graphs, recorded and replayed on a CPU by sglang's own runner: every bit as without them."""

import time

import pytest

pytestmark = [pytest.mark.train, pytest.mark.engine]

torch = pytest.importorskip("torch", reason="the training environment has torch")

import graph_scheduler  # noqa: E402
from graph_scheduler import decode, replayed  # noqa: E402
from replaying import INPUTS, OFF, SAMPLING, assert_parity, differences, input_deviations, requests  # noqa: E402
from test_engine_mixers import ALL  # noqa: E402

import ngrpo.engines.sglang as plugin  # noqa: E402
from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.method.mixers import NeighborMixer, NoMixer  # noqa: E402


@pytest.fixture(scope="module")
def engine(models, tmp_path_factory):
    """sglang with the overlap schedule, which retracts requests at each step of more than ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(graph_scheduler.FILE, str(tmp_path_factory.mktemp("graphs") / "way"))
        patch.setenv("SGLANG_TEST_RETRACT", "true")
        patch.setattr(plugin, "run_scheduler", graph_scheduler.run_scheduler)
        decode("eager")
        with open_engine("sglang", *models(), [*ALL.values()], log_level="error", **graph_scheduler.MACHINE) as engine:
            yield engine


def samples(engine, way, asked):
    """Samples of this way to decode, with nothing shared with earlier ones; the replayed graphs' sizes."""
    while not engine.server.flush_cache().success:  # a shorter prefill has another rounding
        time.sleep(0.01)
    decode(way)
    return engine.generate(asked, SAMPLING), replayed()


def bits(samples) -> list:
    """All that samples say."""
    return [(s.tokens, s.log_probs, s.finish_reason, s.record.pack()) for s in samples]


@pytest.mark.parametrize("name", [*ALL, "none"])
def test_graphs_give_the_bits_of_running_without_them(engine, name):
    """A batch of a captured size and one that is padded, in slots that others have used."""
    mixer = ALL.get(name, NoMixer())
    for n in (4, 3):
        asked = requests(n, mixer)
        ours, sizes = samples(engine, "graphs", asked)
        assert sizes[0] == 4
        assert len(sizes) >= max(len(s.tokens) for s in ours) - 1  # every step but the prefill's
        others, sizes = samples(engine, "eager", asked)
        assert not sizes
        assert bits(ours) == bits(others)


def test_graphs_hold_every_mixer_at_once_with_retraction(engine):
    asked = [r for i, mixer in enumerate(ALL.values()) for r in requests(i + 1, mixer)[i:] if not mixer.dense]
    assert len(asked) > 10  # so that some are retracted
    ours, sizes = samples(engine, "graphs", asked)
    assert len(sizes) > max(len(s.tokens) for s in ours) + 1  # some waited for others
    assert bits(ours) == bits(samples(engine, "eager", asked)[0])


def test_graphs_follow_new_weights(engine, models):
    old, new = models()[0], models(seed=1)[0]
    asked = requests(5)
    engine.load_weights(new)
    try:
        ours, sizes = samples(engine, "graphs", asked)
        assert sizes[0] == 8
        assert_parity(new, asked, ours)
        assert differences(old, asked, ours).max() >= OFF
    finally:
        engine.load_weights(old)


def test_a_graph_that_does_not_mix_would_be_seen(engine, models):
    asked = requests(4, NeighborMixer(0.3))
    ours, sizes = samples(engine, "unmixed graphs", asked)
    assert sizes
    assert bits(ours) != bits(samples(engine, "eager", asked)[0])
    assert differences(models()[0], asked, ours).max() >= OFF
    assert (input_deviations(models()[0], asked, ours) > INPUTS).float().mean() > 0.9
