"""The kernels of `ngrpo.method.fused` on the GPU itself, against the PyTorch forms on a CPU, at a real vocabulary."""

import pytest

pytestmark = [pytest.mark.train, pytest.mark.gpu]

torch = pytest.importorskip("torch", reason="the training environment has torch")

from ngrpo.method import rng, sampling  # noqa: E402

V = 151_936
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
def test_random_numbers_have_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    seed = torch.randint(0, 2**62, (1000,), generator=generator)
    position = torch.randint(0, 1 << 31, (1000,), generator=generator)
    for stream in (rng.GATE, rng.TOKEN):
        on_gpu = rng.uniform(seed.cuda(), position.cuda(), stream).cpu()
        assert on_gpu.equal(rng.uniform(seed, position, stream))
    assert (
        not rng.uniform(seed.cuda(), position.cuda() + 1, rng.GATE).cpu().equal(rng.uniform(seed, position, rng.GATE))
    )


@needs_gpu
@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
def test_the_nucleus_and_its_draws_are_a_cpus(spread: float) -> None:
    p = torch.softmax(torch.randn(16, V, generator=torch.Generator().manual_seed(1)) * spread, -1)
    top_p, top_k = torch.linspace(0.5, 1.0, 16), torch.tensor([-1, 50] * 8)
    ours, sorted_ = sampling.restrict(p.cuda(), top_p.cuda(), top_k.cuda()).cpu(), sampling.restrict(p, top_p, top_k)
    # a token that misses top_p by less than float32 resolves may fall to either side
    assert (ours.double() - sorted_.double()).abs().sum(-1).max() < 2e-6
    u = rng.uniform(torch.arange(16), torch.arange(16), rng.TOKEN)
    same = sampling.draw(ours.cuda(), u.cuda()).cpu() == sampling.draw(ours, u)
    assert same.double().mean() >= 15 / 16
    assert not ours.equal(p)
