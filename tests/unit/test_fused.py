"""The kernels that GPUs use: the same numbers as the PyTorch forms, by Triton's interpreter; compiled for GPUs."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")
triton = pytest.importorskip("triton", reason="the training environment has triton")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from ngrpo.method import rng, sampling  # noqa: E402
from ngrpo.method.mixers import weighted_sum  # noqa: E402

MODULE = "ngrpo.method.fused"
RESOLUTION = 2.0**-23


def imported(interpret: str):
    """The module of kernels, anew: Triton asks for its interpreter when a kernel is defined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", interpret)
        sys.modules.pop(MODULE, None)
        try:
            return importlib.import_module(MODULE)
        finally:
            sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def interpreted():
    """The kernels, run by Triton's interpreter, and with them what Triton itself has written in its language."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    with pytest.MonkeyPatch.context() as patch:
        for module in (triton.language, triton.language.standard):
            for name, value in vars(module).copy().items():
                if isinstance(value, JITFunction):
                    patch.setattr(module, name, InterpretedFunction(value.fn))
        yield imported("1")


def test_random_numbers_are_the_same_bits(interpreted) -> None:
    generator = torch.Generator().manual_seed(0)
    seed = torch.randint(0, 2**62, (300,), generator=generator)
    position = torch.randint(0, 1 << 31, (300,), generator=generator)
    for stream in (rng.GATE, rng.TOKEN, rng.NOISE, rng.GUMBEL):
        assert interpreted.uniform(seed, position, stream).equal(rng.uniform(seed, position, stream))
    assert not interpreted.uniform(seed, position, rng.GATE).equal(rng.uniform(seed, position + 1, rng.GATE))
    assert interpreted.uniform(seed[:3], position[:3].int(), rng.GATE).equal(rng.uniform(seed, position, rng.GATE)[:3])


def rows() -> dict[str, torch.Tensor]:
    """Probabilities (V,) of several shapes, one vocabulary longer than what a program looks at together."""
    generator = torch.Generator().manual_seed(1)
    V = 2100
    z = torch.randn(V, generator=generator)
    closed = (3 * z).masked_fill(torch.arange(V) % 3 > 0, -torch.inf)
    return {
        "peaked": torch.softmax(4 * z, -1),
        "flat": torch.softmax(z / 100, -1),
        "ties": torch.softmax((2 * z).round(), -1),
        "all equal": torch.full((V,), 1 / V),
        "closed": torch.softmax(closed, -1),
        "one": torch.nn.functional.one_hot(torch.tensor(7), V).float(),
        "dyadic": torch.tensor([0.25] * 4 + [0.0] * (V - 4)),
    }


LIMITS = [(0.95, -1), (0.5, 0), (1.0, 40), (0.999, 2000), (0.9, 3), (1e-6, -1), (0.75, -1), (1.0, -1)]


def test_the_nucleus_is_the_sorted_ones(interpreted) -> None:
    shapes = [*rows().values(), rows()["ties"]]
    p = torch.stack(shapes)
    top_p, top_k = (torch.tensor(column) for column in zip(*LIMITS, strict=True))
    ours, others = interpreted.restrict(p, top_p, top_k), sampling.restrict(p, top_p, top_k)
    ordered, index = p.double().sort(dim=-1, descending=True, stable=True)
    before = torch.zeros_like(ordered).scatter(-1, index, ordered.cumsum(-1) - ordered)
    certain = (before - top_p.double()[:, None]).abs() > RESOLUTION
    assert certain[:7].double().mean() > 0.99
    assert ours[certain].equal(others[certain])
    assert ((ours == 0) | (ours == p)).all()
    assert (ours > 0).any(-1).all()
    assert not ours.equal(sampling.restrict(p, top_p * 0.9, top_k))  # the control: other limits keep others


def as_it_was(p, top_p, top_k):
    """The nucleus as it was first written, with its two questions to the device."""
    if bool((top_p >= 1).all()) and bool((top_k <= 0).all()):
        return p
    ordered, index = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    rank = torch.arange(p.shape[-1])
    limit = torch.where(top_k > 0, top_k.to(rank.dtype), p.shape[-1])
    keep = (before < top_p[:, None]) & (rank < limit[:, None])
    return torch.zeros_like(p).scatter(-1, index, ordered * keep)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    V=st.integers(1, 60),
    spread=st.sampled_from([0.0, 0.01, 1.0, 8.0]),
    step=st.sampled_from([0.0, 0.5, 2.0]),
    top_p=st.one_of(st.floats(2.0**-30, 1.0, width=32), st.sampled_from([0.25, 0.5, 0.75, 0.95, 1.0])),
    top_k=st.integers(-1, 70),
    closed=st.booleans(),
)
def test_the_same_seeds_draw_the_same_tokens_as_ever(
    seed: int, V: int, spread: float, step: float, top_p: float, top_k: int, closed: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(8, V, generator=generator) * spread
    z = (z / step).round() * step if step else z
    z = z.masked_fill(torch.arange(V) % 2 > 0, -torch.inf) if closed else z
    p = torch.softmax(z, -1)
    limits = torch.full((8,), top_p), torch.full((8,), top_k)
    u = rng.uniform(torch.arange(8) + seed, torch.arange(8), rng.TOKEN)
    assert sampling.draw(sampling.restrict(p, *limits), u).equal(sampling.draw(as_it_was(p, *limits), u))


def test_a_row_without_a_limit_is_left_whole_beside_one_that_has() -> None:
    p = torch.softmax(torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 8, -1)
    both = sampling.restrict(p, torch.tensor([1.0, 0.5]), torch.tensor([-1, -1]))
    assert both[0].equal(p[0])
    assert not both[1].equal(p[1])


def test_running_sums_of_a_gpu_are_those_of_a_cpu() -> None:
    """Sums in float64, rounded once each: what a GPU is told to do is what a CPU does with float32."""
    p = torch.softmax(torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0)) * 3, -1)
    assert p.cumsum(-1).equal(p.cumsum(-1, dtype=torch.float64).float())
    assert not p.cumsum(-1).equal(p.flip(-1).cumsum(-1))


def test_kernels_compile_for_gpus_and_keep_to_their_registers() -> None:
    """In a process of its own: Triton's interpreter leaves its language changed."""
    script = Path(__file__).with_name("compiled_kernels.py")
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.splitlines()
    names = ("_uniform", "_nucleus", "_rmsnorm", "_silu_and_mul", "_rope")  # the last three stand in for sgl-kernel
    kernels = [f"sm_{capability} {name}" for capability in (80, 90) for name in names]
    assert [line.split(":")[0] for line in made] == kernels
    assert all("STACK:0 " in line for line in made), made  # nothing spills


def test_a_whole_vocabulary_is_mixed_without_a_copy_of_it() -> None:
    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
            self.entries = max(self.entries, 0 if views else out.numel())
            return out

    generator = torch.Generator().manual_seed(0)
    E = torch.randn(5000, 32, generator=generator)
    weights = torch.softmax(torch.randn(3, 5000, generator=generator) * 3, -1)
    half = E.bfloat16()
    with Largest() as largest:
        low = weighted_sum(weights, half)
    assert largest.entries <= weights.numel()
    exact, most = weights.double() @ half.double(), weights.double() @ half.double().abs()
    assert ((low - exact).abs() <= 2**-8 * most).all()
    assert weighted_sum(weights, E).equal(weights @ E)
    with Largest() as copying:  # the control
        weights @ half.float()
    assert copying.entries == E.numel()
