"""GPUs without sgl-kernel and flash-attn: what stands in for them computes the same, and nothing else is asked for."""

import importlib
import sys

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")
triton = pytest.importorskip("triton", reason="the training environment has triton")

from test_fused import interpreted  # noqa: E402

from ngrpo.engines.sglang import cpu, newer  # noqa: E402
from ngrpo.files import write_json  # noqa: E402
from ngrpo.training.verl import accelerator  # noqa: E402

__all__ = ["interpreted"]

ROWS, D = 5, 96
CONFIG = {"hidden_size": 1536, "num_attention_heads": 12, "torch_dtype": "bfloat16"}


@pytest.fixture
def kernels(interpreted, monkeypatch):
    """The stand-in for sgl-kernel, run by Triton's interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.syspath_prepend(str(newer.KERNELS))
    names = [name for name in sys.modules if name.split(".")[0] in ("sgl_kernel", "flash_attn")]
    before = {name: sys.modules.pop(name) for name in names}
    yield importlib.import_module("sgl_kernel")
    for name in [name for name in sys.modules if name.split(".")[0] in ("sgl_kernel", "flash_attn")]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def gpu(kernels, monkeypatch):
    """A machine that says that it has a GPU, and nothing but the stand-ins."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def close(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal up to rounding."""
    return bool(((ours - expected).norm() <= 2e-6 * expected.norm()).item())


def test_norms_are_right_and_another_eps_would_be_seen(kernels) -> None:
    torch.manual_seed(0)
    x, residual, weight = torch.randn(ROWS, D) / 30, torch.randn(ROWS, D) / 30, torch.rand(D) + 0.5

    def norm(v, eps=1e-6):
        return v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps) * weight

    assert close(kernels.rmsnorm(x, weight, 1e-6), norm(x))
    assert not close(kernels.rmsnorm(x, weight, 1e-6), norm(x, 1e-4))
    ours, total = x.clone(), residual.clone()
    kernels.fused_add_rmsnorm(ours, total, weight, 1e-6)
    assert close(ours, norm(x + residual))
    assert close(total, x + residual)


def test_gates_are_right(kernels) -> None:
    x = torch.randn(ROWS, 2 * D, generator=torch.Generator().manual_seed(0))
    gate, up = x.chunk(2, -1)
    assert close(kernels.silu_and_mul(x), torch.nn.functional.silu(gate) * up)
    assert not close(kernels.silu_and_mul(x), torch.nn.functional.silu(up) * gate)


@pytest.mark.parametrize("size", [16, 32])
def test_rotary_embeddings_turn_slices_of_one_matrix_in_place(kernels, size: int) -> None:
    heads = 2
    rows = torch.randn(ROWS, 3 * heads * size, generator=torch.Generator().manual_seed(0))
    query, key, value = rows.split(heads * size, -1)
    before, untouched = [t.clone().view(ROWS, heads, size) for t in (query, key)], value.clone()
    angle = torch.outer(torch.arange(64.0), 1 / 1e4 ** (torch.arange(0, size, 2) / size))
    at = torch.tensor([0, 3, 63, 5, 5])
    kernels.apply_rope_with_cos_sin_cache_inplace(at, query, key, size, torch.cat([angle.cos(), angle.sin()], -1))
    cos, sin = angle[at].cos()[:, None], angle[at].sin()[:, None]
    for turned, (a, b) in zip((query, key), (t.chunk(2, -1) for t in before), strict=True):
        assert close(turned.reshape(ROWS, heads, size), torch.cat([a * cos - b * sin, b * cos + a * sin], -1))
    assert value.equal(untouched)
    with pytest.raises(NotImplementedError, match="neox"):
        kernels.apply_rope_with_cos_sin_cache_inplace(at, query, key, size, None, is_neox=False)


def test_attention_of_packed_rows_is_each_rows_own(kernels) -> None:
    attend = importlib.import_module("flash_attn").flash_attn_varlen_func
    padding = importlib.import_module("flash_attn.bert_padding")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(12, heads, 16, generator=generator) for heads in (4, 2, 2))
    ends = torch.tensor([0, 5, 12], dtype=torch.int32)
    packed = attend(q, k, v, ends, ends, 7, 7, causal=True)
    for a, b in ((0, 5), (5, 12)):
        rows = [t[None, a:b].transpose(1, 2) for t in (q, k, v)]
        own = torch.nn.functional.scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=True)
        assert close(packed[a:b], own[0].transpose(0, 1))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    text = torch.arange(6.0).view(2, 3, 1)
    rows, indices, starts, longest, _ = padding.unpad_input(text, mask)
    assert (rows[:, 0].tolist(), starts.tolist(), longest) == ([0, 1, 3, 4, 5], [0, 2, 5], 3)
    assert padding.pad_input(rows, indices, 2, 3).equal(text * mask[..., None])


def test_what_the_stand_in_lacks_says_so_when_it_is_called(kernels) -> None:
    with pytest.raises(NotImplementedError, match="moe_align_block_size isn't in this stand-in"):
        kernels.moe_align_block_size()


def test_sglang_and_verl_are_asked_for_no_kernel_that_is_not_there(gpu, tmp_path, monkeypatch) -> None:
    write_json(tmp_path / "config.json", CONFIG)
    asked = {"model_path": str(tmp_path), "dtype": "bfloat16"}
    assert newer.stands_in()
    assert cpu.server_arguments(asked).items() >= {"attention_backend": "triton", "sampling_backend": "pytorch"}.items()
    trainer = accelerator.settings(32, 16, 1000, "float32")
    assert trainer["actor_rollout_ref.rollout.free_cache_engine"] is False
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the controls: no GPU, and none of the stand-ins
    assert not newer.stands_in()
    monkeypatch.setattr(accelerator, "on_cpu", lambda: False)
    assert "actor_rollout_ref.rollout.free_cache_engine" not in accelerator.settings(32, 16, 1000, "float32")


def test_the_names_that_sglang_imports_of_triton_are_its_settings(monkeypatch) -> None:
    cache = triton.runtime.cache
    for name in newer._SETTINGS:
        monkeypatch.delattr(cache, name, raising=False)
    folders = type("Settings", (), {"dir": "a", "dump_dir": "b", "override_dir": "c"})
    monkeypatch.setattr(cache, "knobs", type("Knobs", (), {"cache": folders}), raising=False)
    newer.prepare()
    made = [getattr(cache, name)() for name in newer._SETTINGS]
    for name in newer._SETTINGS:
        monkeypatch.delattr(cache, name)
    assert made == ["a", "b", "c"]
