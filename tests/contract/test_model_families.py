"""Qwen2, Llama and Qwen3, tied and untied, on one rank and with tensor parallelism, in the real sglang engine."""

import pytest

pytestmark = [pytest.mark.train, pytest.mark.engine]

pytest.importorskip("torch", reason="the training environment has torch")

from replaying import SAMPLING, assert_parity, requests, shared_steps  # noqa: E402

from ngrpo.engines import open_engine  # noqa: E402
from ngrpo.method.mixers import GaussianMixer, GumbelMixer, NeighborMixer, SoftThinkingMixer  # noqa: E402

MIXERS = [NeighborMixer(0.3), GaussianMixer(), GumbelMixer()]
FAMILIES = [("llama", False), ("llama", True), ("qwen3", False), ("qwen3", True), ("qwen2", True)]


def assert_alike(ours, others) -> None:
    """The same samples, of which rounding may part a third on the way: a random model's answer to it grows."""
    shared = [shared_steps(a, b) for a, b in zip(ours, others, strict=True)]
    assert min(shared) >= 3
    assert sum(n >= len(a.tokens) for n, a in zip(shared, ours, strict=True)) >= len(ours) * 2 / 3


@pytest.mark.parametrize(("family", "tied"), FAMILIES, ids=[f"{f}-{'tied' if t else 'untied'}" for f, t in FAMILIES])
def test_each_family_replays_and_gives_the_oracles_samples(models, family: str, tied: bool) -> None:
    files = models(family, tied)
    asked = requests(6)
    with (
        open_engine("sglang", *files, mixers=MIXERS, log_level="error") as sglang,
        open_engine("transformers", *files, mixers=MIXERS) as oracle,
    ):
        for mixer in MIXERS:
            own = requests(6, mixer)
            assert_parity(files[0], own, sglang.generate(own, SAMPLING))
        assert_alike(sglang.generate(asked, SAMPLING), oracle.generate(asked, SAMPLING))


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_tensor_parallel_ranks_sample_as_one(models, family: str) -> None:
    files = models(family)
    mixers = [*MIXERS, SoftThinkingMixer()]
    with (
        open_engine("sglang", *files, mixers=mixers, tp_size=2, refresh="update", log_level="error") as two,
        open_engine("sglang", *files, mixers=mixers, log_level="error") as one,
    ):
        for mixer in MIXERS:
            asked = requests(6, mixer)
            assert_parity(files[0], asked, two.generate(asked, SAMPLING))
        for mixer in (NeighborMixer(0.3), GaussianMixer()):
            asked = requests(6, mixer)
            assert_alike(two.generate(asked, SAMPLING), one.generate(asked, SAMPLING))
        new = models(family, seed=1)
        two.load_weights(new[0])
        asked = requests(6)
        with open_engine("sglang", *new, log_level="error") as fresh:
            ours, theirs = two.generate(asked, SAMPLING), fresh.generate(asked, SAMPLING)
        assert_alike(ours, theirs)
        assert max(shared_steps(a, b) for a, b in zip(ours, one.generate(asked, SAMPLING), strict=True)) <= 3
