"""A decoding step of the real sglang engine has a budget of kernel launches, and never waits for the device."""

import json
from dataclasses import replace

import pytest

pytestmark = [pytest.mark.train, pytest.mark.engine]

torch = pytest.importorskip("torch", reason="the training environment has torch")

import launches  # noqa: E402
from replaying import SAMPLING, requests  # noqa: E402

import ngrpo.engines.sglang as plugin  # noqa: E402
from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.method import rng  # noqa: E402
from ngrpo.method.mixers import (  # noqa: E402
    GaussianMixer,
    GumbelMixer,
    MinPMixer,
    MultiplexMixer,
    NeighborMixer,
    NoMixer,
    SoftThinkingMixer,
)

UNMIXED = 20
"""Launches of a step that samples and doesn't mix."""
MIXING = 25
"""Launches that mixing neighbors adds to it."""
TOP_P = 1
"""Launches that top-p and top-k add: their kernel."""


@pytest.fixture(scope="module")
def counted(models, tmp_path_factory):
    """counted(mixer, sampling) → launches by operation and host reads by operation of a typical decoding step."""
    file = tmp_path_factory.mktemp("launches") / "steps.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(launches.FILE, str(file))
        patch.setattr(plugin, "run_scheduler", launches.run_scheduler)
        with open_engine("sglang", *models(), log_level="error") as engine:

            def get(mixer, sampling=SAMPLING):
                file.write_text("")
                engine.generate(requests(4, mixer), replace(sampling, max_new_tokens=8))
                steps = [json.loads(line) for line in file.read_text().splitlines()]
                assert len(steps) >= 7
                return steps[3]["launches"], [step["reads"] for step in steps]

            yield get


def test_mixing_adds_few_launches_to_a_step(counted):
    unmixed, mixed = counted(NoMixer())[0], counted(NeighborMixer(0.1))[0]
    print(f"launches: {sum(unmixed.values())} without mixing, {sum(mixed.values())} with", unmixed, mixed)
    assert sum(unmixed.values()) <= UNMIXED
    assert sum(mixed.values()) - sum(unmixed.values()) <= MIXING


def test_limits_add_one_launch(counted):
    limited = replace(SAMPLING, top_p=0.95, top_k=200)
    added = sum(counted(NoMixer(), limited)[0].values()) - sum(counted(NoMixer())[0].values())
    assert added <= TOP_P


@pytest.mark.parametrize(
    "mixer",
    [
        NoMixer(),
        NeighborMixer(0.1),
        NeighborMixer(0.5, weights="probabilities", text="sampled", stop_after=7),
        GaussianMixer(),
        GaussianMixer(scope="row", k=3, rho=0.5, stop_after=7),
        GumbelMixer(stop_after=7),
        SoftThinkingMixer(stop_after=7),
        SoftThinkingMixer(keep=5, stop_after=7),
        MultiplexMixer(stop_after=7),
        MinPMixer(0.1),
    ],
    ids=repr,
)
def test_no_step_reads_a_value_on_the_host(counted, mixer):
    for sampling in (SAMPLING, replace(SAMPLING, top_p=0.95)):
        assert [step for step in counted(mixer, sampling)[1] if step] == []


def test_the_counter_sees_chains_and_reads():
    """The controls: a random number as a chain of operations, and a question that the host asks."""
    seed, position = torch.arange(4), torch.arange(4)
    with launches.Counting() as counting:
        rng._on_cpu(seed, position, rng.GATE)
    assert counting.launches.total() > MIXING
    with launches.Counting() as counting:
        rng.uniform(seed, position, rng.GATE)
    assert counting.launches.total() == 1
    with launches.Counting() as counting:
        bool((seed >= 1).all())
        seed[seed > 1]
    assert counting.reads.total() == 2
