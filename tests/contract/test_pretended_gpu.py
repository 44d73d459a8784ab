"""The plugin's step on tensors that pretend to be a GPU's: devices meet rightly, and the host never waits for one.

They are torch's fake tensors of its device without memory, which a build without CUDA has, too.
"""

import types

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

from launches import reads_host  # noqa: E402
from test_engine_mixers import ALL  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from ngrpo.engines.sglang import plan, state  # noqa: E402
from ngrpo.method.mixers import NeighborMixer, NoMixer  # noqa: E402
from ngrpo.method.neighbor_table import Table  # noqa: E402

B, V, D, GPU = 4, 300, 32, "meta"
FROM_HOST = {"aten::where", "aten::index_put_", "aten::index_put", "aten::index"}
"""Operations that copy a CPU tensor to the device, and wait; others take a CPU's number along with the launch."""


class Waits(TorchDispatchMode):
    """Notes whatever makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name, tensors = func._schema.name, [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        devices = {t.device.type for t in tensors}
        if reads_host(func, args):
            self.waits.append(name)
        if name in FROM_HOST and len(devices) > 1:
            self.waits.append(f"{name} of a CPU tensor")
        if name in ("aten::_to_copy", "aten::copy_"):
            devices |= {torch.device(kwargs["device"]).type} if kwargs.get("device") is not None else set()
            patient = kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2])
            if len(devices) > 1 and not patient:
                self.waits.append(f"{name} between devices")
        return func(*args, **kwargs)


class Embedding(torch.nn.Module):
    """As sglang's, of one rank."""

    tp_size = 1
    shard_indices = types.SimpleNamespace(org_vocab_start_index=0)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(V, D, dtype=torch.bfloat16, device=GPU), requires_grad=False)

    def forward(self, ids):
        return torch.nn.functional.embedding(ids.long(), self.weight)


@pytest.fixture
def mixing(monkeypatch):
    """The mixing of a runner with a pretended GPU; pinned memory is as good as other memory here."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer = Embedding()
        runner = types.SimpleNamespace(
            model=types.SimpleNamespace(model=types.SimpleNamespace(embed_tokens=layer), forward=None, lm_head=layer),
            device=GPU,
            req_to_token_pool=types.SimpleNamespace(size=16),
            model_config=types.SimpleNamespace(vocab_size=V),
            _preprocess_logits=lambda *_: None,
        )
        table = Table(torch.zeros(V, 3, dtype=torch.int32), torch.zeros(V, dtype=torch.bool), "cosine", "keep", V, "")
        yield state.MixState(runner, table, state.PluginSettings(None, "cosine", 3))


def batch(mixers, *, extends: bool, top_p: float):
    """A batch of one request of each mixer, as the scheduler hands it over."""
    mode = types.SimpleNamespace(is_extend=lambda: extends, is_decode=lambda: not extends)
    params = types.SimpleNamespace(top_p=top_p, top_k=1 << 30)
    reqs = [
        types.SimpleNamespace(
            ngrpo=plan.RequestState(i, mixer), sampling_params=params, origin_input_ids=[1, 2], output_ids=[]
        )
        for i, mixer in enumerate(mixers)
    ]
    n = len(reqs)
    made = plan.BatchPlan(types.SimpleNamespace(reqs=reqs, forward_mode=mode, prefix_lens=[0] * n, extend_lens=[2] * n))
    return types.SimpleNamespace(
        ngrpo=made,
        forward_mode=mode,
        req_pool_indices=torch.arange(n, device=GPU),
        seq_lens=torch.arange(n, device=GPU) + 9,
        return_logprob=True,
        sampling_info=types.SimpleNamespace(
            temperatures=torch.ones(n, 1, device=GPU),
            top_ps=torch.full((n,), top_p, device=GPU),
            top_ks=torch.full((n,), 1 << 30, dtype=torch.int32, device=GPU),
        ),
    )


def step(mixing, mixers, *, extends: bool, top_p: float) -> Waits:
    """Sample and feed once; what waited."""
    asked = batch(mixers, extends=extends, top_p=top_p)
    out = types.SimpleNamespace(next_token_logits=torch.empty(len(mixers), V, device=GPU), next_token_logprobs=None)
    with Waits() as waits:
        token = mixing.sample(None, out, asked)
        mixing.batch = asked
        fed = mixing._embed(torch.zeros(len(mixers) * (2 if extends else 1), dtype=torch.int64, device=GPU))
    assert {token.device.type, fed.device.type, out.next_token_logprobs.device.type} == {GPU}
    assert fed.dtype == torch.bfloat16
    return waits


@pytest.mark.parametrize("extends", [True, False], ids=["prefill", "decode"])
@pytest.mark.parametrize("name", [*ALL, "none", "together"])
def test_no_step_waits_for_the_device(mixing, name, extends):
    mixers = list(ALL.values()) if name == "together" else [ALL.get(name, NoMixer())] * B
    for top_p in (1.0, 0.95):
        assert step(mixing, mixers, extends=extends, top_p=top_p).waits == []


@pytest.mark.parametrize(
    ("wait", "word"),
    [
        (lambda on: torch.where(on, torch.tensor(1), on.int()), "where of a CPU tensor"),
        (lambda on: on.index_put_((torch.zeros(2, dtype=torch.int64, device=GPU),), torch.tensor(False)), "CPU tensor"),
        (lambda on: on[on], "index"),
        (lambda on: on.to("cpu"), "between devices"),
        (lambda on: torch.ones(4).to(GPU), "between devices"),
    ],
    ids=["where", "value-by-index", "mask", "to-host", "from-host"],
)
def test_what_waits_would_be_seen(mixing, monkeypatch, wait, word):
    """The controls: each way to wait, put into the lookup."""
    plain = state.MixState._next_input

    def next_input(self, rows, slot):
        try:
            wait(self.on)
        except Exception as error:  # a pretended tensor has no values to ask for
            if "data-dependent" not in str(error).lower() and "dynamic" not in type(error).__name__.lower():
                raise
        return plain(self, rows, slot)

    monkeypatch.setattr(state.MixState, "_next_input", next_input)
    assert any(word in wait for wait in step(mixing, [NeighborMixer(0.3)] * B, extends=False, top_p=1.0).waits)
