"""Each input mixer in each engine: replay parity with its negative control, and the same samples in both engines."""

from dataclasses import replace

import numpy as np
import pytest

pytestmark = pytest.mark.train

pytest.importorskip("torch", reason="the training environment has torch")

import torch  # noqa: E402
from replaying import (  # noqa: E402
    MEAN,
    MOST,
    OFF,
    SAMPLING,
    assert_parity,
    assert_same,
    differences,
    likelihood_ratios,
    requests,
    shared_steps,
)
from transformers import AutoModelForCausalLM  # noqa: E402

from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.engines.contract import Request  # noqa: E402
from ngrpo.method.mixers import (  # noqa: E402
    WEIGHT_SCALE,
    GaussianMixer,
    GumbelMixer,
    MinPMixer,
    MultiplexMixer,
    NeighborMixer,
    NoMixer,
    SoftThinkingMixer,
)
from ngrpo.method.neighbor_table import nearest  # noqa: E402

STOP = 7  # stands for the token that ends thinking
REPLAYED = {
    "neighbors": NeighborMixer(0.3),
    "neighbors, w/o rate": NeighborMixer(1.0),
    "neighbors, k=2": NeighborMixer(0.5, k=2),
    "neighbors, released": NeighborMixer(0.5, weights="probabilities", text="sampled", stop_after=STOP),
    "neighbors, random ones": NeighborMixer(0.5, fed="random"),
    "gaussian": GaussianMixer(),
    "gaussian, row by row": GaussianMixer(scope="row"),
    "gaussian, gated, until the end": GaussianMixer(rho=0.7, stop_after=STOP),
    "gaussian, on a mixture": GaussianMixer(scope="row", k=3, temperature=0.7, rho=0.5),
    "gumbel": GumbelMixer(),
    "gumbel, released": GumbelMixer(temperature=1.0, weights="clean", text="sampled", stop_after=STOP),
    "soft-grpo": GumbelMixer(chosen_by="probability", log_prob="noise"),
    "soft-grpo, noisy candidates": GumbelMixer(log_prob="noise"),
    "soft-grpo, released": GumbelMixer(chosen_by="probability", log_prob="release", stop_after=STOP),
    "multiplex": MultiplexMixer(),
    "multiplex, by probability": MultiplexMixer(k=4, weights="probabilities", top_p=0.8, stop_after=STOP),
}
SAMPLED_ONLY = {
    "gaussian, released": GaussianMixer(replay=False, scope="row", k=3, temperature=0.7, rho=0.5, stop_after=STOP),
    "soft thinking": SoftThinkingMixer(),
    "soft thinking, until its end": SoftThinkingMixer(stop_after=STOP),
    "soft thinking, the authors'": SoftThinkingMixer(keep=10, stop_after=STOP, cold_entropy=0.5, cold_steps=3),
}
ALL = {**REPLAYED, **SAMPLED_ONLY}
CHAOTIC = [
    name
    for name, m in ALL.items()
    if m.kind in ("gumbel", "soft-thinking")
    or (m.kind == "gaussian" and m.k)
    or (m.kind == "multiplex" and m.weights == "probabilities")
]
"""What is fed follows the logits at every step, or every other: in a random model rounding grows threefold a step."""


@pytest.fixture(scope="module")
def transformers(models):
    """The oracle."""
    with open_engine("transformers", *models(), mixers=[*ALL.values()]) as engine:
        yield engine


@pytest.fixture(scope="module")
def sglang(models):
    """sglang with room for every mixer at once."""
    with open_engine("sglang", *models(), mixers=[*ALL.values()], log_level="error") as engine:
        yield engine


@pytest.mark.parametrize("name", REPLAYED)
def test_what_each_mixer_records_gives_the_log_probs_again(engine, models, name):
    asked = requests(6, REPLAYED[name])
    assert_parity(models()[0], asked, engine.generate(asked, SAMPLING))  # and not without the records


@pytest.mark.parametrize("name", [n for n in REPLAYED if REPLAYED[n].own_likelihood])
def test_the_likelihood_of_a_mixed_step_is_its_mixers(engine, models, name):
    """Each control forgets one half: what was fed, or what its likelihood is of; a last step is its token's alone."""
    asked = requests(6, REPLAYED[name])
    samples = engine.generate(asked, SAMPLING)
    tokens_only = [replace(r, mixer=NoMixer()) for r in asked]
    assert differences(models()[0], tokens_only, samples).max() >= OFF
    token = np.int32([[WEIGHT_SCALE, *[0] * (REPLAYED[name].k - 1)]])
    unmixed = [replace(s, record=replace(s.record, weights=token.repeat(len(s.record.index), 0))) for s in samples]
    assert differences(models()[0], asked, unmixed).max() >= OFF
    assert any(s.finish_reason == "length" for s in samples)
    last = torch.tensor([len(s.tokens) for s in samples]).cumsum(0) - 1
    assert differences(models()[0], tokens_only, samples)[last].max() <= MOST


def test_min_p_writes_no_unlikely_token_and_log_probs_are_of_all(engine, models):
    """The control: without it, some tokens are less likely than the floor."""
    asked = requests(6, MinPMixer(0.2))
    samples = engine.generate(asked, SAMPLING)
    off = differences(models()[0], asked, samples)
    assert off.max() <= MOST
    assert off.mean() <= MEAN
    assert not any(s.record.mixed().any() for s in samples)
    plain = engine.generate(requests(6, NoMixer()), SAMPLING)

    def least(samples) -> float:
        parts = [likelihood_ratios(models()[0], r.prompt, s.tokens) for r, s in zip(asked, samples, strict=True)]
        return float(torch.cat(parts).min())

    assert least(samples) >= 0.2 * (1 - 1e-4)
    assert least(plain) < 0.1


@pytest.mark.engine
def test_min_p_gives_the_same_samples_in_both_engines(sglang, transformers):
    asked = requests(6, MinPMixer(0.2, top_p=0.9))
    assert_same(sglang.generate(asked, SAMPLING), transformers.generate(asked, SAMPLING))


@pytest.mark.parametrize("name", SAMPLED_ONLY)
def test_what_is_not_recorded_is_not_replayed(engine, models, name):
    """The negative control of a mixer that leaves nothing to replay; its samples carry empty records."""
    asked = requests(6, SAMPLED_ONLY[name])
    samples = engine.generate(asked, SAMPLING)
    if SAMPLED_ONLY[name].kind == "gaussian":  # the mixtures are recorded, and that the noise is to be drawn anew
        assert all(s.record.noise.anew for s in samples if s.record.noise)
        assert any(len(s.record.index) for s in samples)
        assert differences(models()[0], asked, samples).max() >= OFF
        same = [replace(s, record=replace(s.record, noise=replace(s.record.noise, anew=False))) for s in samples]
        assert differences(models()[0], asked, same).max() <= MOST  # the control: with the rollout's own noise
    else:
        assert differences(models()[0], asked, samples, drop=True).max() >= OFF


@pytest.mark.parametrize(
    "mixer", [NeighborMixer(0.0), GaussianMixer(factor=0.0), MinPMixer(0.0)], ids=["rho=0", "sigma=0", "min_p=0"]
)
def test_a_mixer_that_never_mixes_is_stock_decoding_bit_for_bit(engine, models, mixer):
    asked = requests(5, NoMixer())
    stock = engine.generate(asked, SAMPLING)
    still = engine.generate(requests(5, mixer), SAMPLING)
    assert [(s.tokens, s.log_probs) for s in still] == [(s.tokens, s.log_probs) for s in stock]
    off = differences(models()[0], asked, stock)
    assert off.max() <= MOST
    assert off.mean() <= MEAN


@pytest.mark.parametrize(
    "name", [n for n in ALL if "stop_after" in vars(ALL[n]) and ALL[n].stop_after and ALL[n].kind != "soft-thinking"]
)
def test_nothing_is_mixed_from_the_step_that_writes_the_end_on(engine, name):
    """And the control: the same mixer without an end goes on after that token."""

    def after_the_end(mixer) -> int:
        late = ended = 0
        for sample in engine.generate(requests(64, mixer), SAMPLING):
            if STOP not in sample.tokens[:-1]:
                continue
            end, record, ended = sample.tokens.index(STOP), sample.record, ended + 1
            late += int((record.index >= end).sum())
            if record.noise is not None:
                late += int((np.broadcast_to(record.noise.sigma, record.length - 1)[end:] > 0).sum())
        assert ended >= 1
        return late

    assert after_the_end(ALL[name]) == 0
    assert after_the_end(replace(ALL[name], stop_after=None)) > 0


@pytest.mark.engine
@pytest.mark.parametrize("name", [n for n in ALL if n not in CHAOTIC])
def test_both_engines_give_the_same_samples(sglang, transformers, name):
    asked = requests(6, ALL[name])
    assert_same(sglang.generate(asked, SAMPLING), transformers.generate(asked, SAMPLING))


@pytest.mark.engine
@pytest.mark.parametrize("name", CHAOTIC)
def test_both_engines_agree_until_rounding_has_grown(sglang, transformers, name):
    asked = requests(12, ALL[name])
    ours, others = sglang.generate(asked, SAMPLING), transformers.generate(asked, SAMPLING)
    shared = [shared_steps(a, b) for a, b in zip(ours, others, strict=True)]
    assert min(shared) >= 3
    assert sorted(shared)[6] >= 5
    sharper = {
        "gumbel": GumbelMixer(k=4),
        "soft-thinking": SoftThinkingMixer(keep=9),
        "gaussian": GaussianMixer(k=2, scope="row"),
        "multiplex": MultiplexMixer(k=3, weights="probabilities", top_p=0.8),
    }[ALL[name].kind]
    other = transformers.generate(requests(12, sharper), SAMPLING)
    assert min(shared_steps(a, b) for a, b in zip(ours, other, strict=True)) <= 1  # another mixer differs at once


@pytest.mark.engine
def test_all_mixers_in_one_batch_leave_each_other_alone(sglang):
    asked = [r for i, mixer in enumerate(ALL.values()) for r in requests(i + 1, mixer)[i:]]
    together = sglang.generate(asked, SAMPLING)
    for request, sample in zip(asked, together, strict=True):
        assert shared_steps(sglang.generate([request], SAMPLING)[0], sample) >= 3
        plain = sglang.generate([Request(request.prompt, request.seed)], SAMPLING)[0]
        assert shared_steps(plain, sample) < len(sample.tokens)


@pytest.mark.engine
def test_a_following_table_can_be_of_the_output_layer_as_the_release_searches(models):
    (old, table), new = models(), models(seed=1)[0]
    with open_engine("sglang", old, table, refresh="update", space="lm_head", log_level="error") as engine:
        engine.load_weights(new)
        fed = torch.cat([torch.from_numpy(s.record.ids) for s in engine.generate(requests(6), SAMPLING)])
    layers = AutoModelForCausalLM.from_pretrained(new)
    head, E = (f().weight.detach() for f in (layers.get_output_embeddings, layers.get_input_embeddings))
    assert fed.equal(nearest(head, 3, "cosine")[fed[:, 0]])
    assert not fed.equal(nearest(E, 3, "cosine")[fed[:, 0]])
