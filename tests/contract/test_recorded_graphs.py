"""The plugin's lookup in a graph recorded on a CPU: a replay feeds what slots hold by then, every bit as eager."""

import types

import pytest

pytestmark = pytest.mark.train

torch = pytest.importorskip("torch", reason="the training environment has torch")

from recorded_graphs import RecordedGraph, capture  # noqa: E402

from ngrpo.engines.sglang import state  # noqa: E402

SIZE, V, D = 4, 50, 16


class Embedding(torch.nn.Module):
    """As sglang's, of one rank."""

    tp_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(V, D, generator=torch.Generator().manual_seed(0)))

    def forward(self, ids):
        return torch.nn.functional.embedding(ids, self.weight)


@pytest.fixture
def mixing():
    """The mixing of a runner without a table, whose slots have been written to."""
    layer = Embedding()
    runner = types.SimpleNamespace(
        model=types.SimpleNamespace(model=types.SimpleNamespace(embed_tokens=layer), forward=None),
        device="cpu",
        req_to_token_pool=types.SimpleNamespace(size=16),
    )
    with torch.no_grad():
        yield state.MixState(runner, None, state.PluginSettings())


def captured(mixing):
    """A graph of a decoding step's lookup with the tensors that it reads and makes: ids, slots, rows."""
    ids, slots, graph = torch.zeros(SIZE, dtype=torch.int64), torch.zeros(SIZE, dtype=torch.int64), RecordedGraph()
    decode = types.SimpleNamespace(is_decode=lambda: True)
    mixing.batch = types.SimpleNamespace(forward_mode=decode, req_pool_indices=slots)
    with capture(graph):
        rows = mixing._embed(ids)
    mixing.batch = None
    return graph, ids, slots, rows


def write(mixing, number: int) -> None:
    """What sampling leaves in the slots."""
    generator = torch.Generator().manual_seed(number)
    mixing.fed.copy_(torch.randn(mixing.fed.shape, generator=generator))
    mixing.on.copy_(torch.rand(len(mixing.on), generator=generator) < 0.5)


def test_replays_feed_what_the_slots_hold_by_then(mixing):
    graph, ids, slots, rows = captured(mixing)
    for number in range(20):  # slots are used again, in other orders; of three requests the fourth place is padding
        write(mixing, number)
        n = SIZE - number % 2
        ids[:n], slots[:n] = torch.randint(V, (n,)), torch.randperm(16)[:n]
        graph.replay()
        asked = types.SimpleNamespace(feeds=True)
        mixing.batch = types.SimpleNamespace(
            forward_mode=types.SimpleNamespace(is_decode=lambda: True), req_pool_indices=slots[:n], ngrpo=asked
        )
        assert rows[:n].equal(mixing._embed(ids[:n]))
        mixing.batch = None


def test_a_graph_that_does_not_mix_and_one_that_asks_would_be_seen(mixing, monkeypatch):
    mixed = state.MixState._next_input
    monkeypatch.setattr(state.MixState, "_next_input", lambda self, rows, slot: rows)
    graph, ids, slots, rows = captured(mixing)
    write(mixing, 1)
    mixing.on.fill_(True)
    graph.replay()
    assert rows.equal(mixing._lookup(ids))
    assert not rows.equal(mixing.fed[slots])
    monkeypatch.setattr(
        state.MixState, "_next_input", lambda self, rows, slot: mixed(self, rows, slot) if self.on.any() else rows
    )
    with pytest.raises(RuntimeError, match="isn't allowed while a graph is captured"):
        captured(mixing)


def test_a_recorded_graph_replays_into_the_tensors_of_its_capture():
    x, graph = torch.arange(3.0), RecordedGraph()
    with capture(graph):
        y = x * 2
        z = torch.empty(3)
        z.copy_(y)
        w = y.detach().view(1, 3) + 1
        rubbish = torch.empty(3)
    x.fill_(5)
    graph.replay()
    assert (y.tolist(), z.tolist(), w.tolist()) == ([10.0] * 3, [10.0] * 3, [[11.0] * 3])
    assert rubbish.isnan().all()  # memory that nothing was written to
