"""A scheduler process that decodes through recorded graphs, by sglang's own CudaGraphRunner, or without them.

A file says which. Either way each row is computed by itself, so that a batch which is padded to a graph's size has the
bits of one that isn't.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FILE = "NGRPO_TEST_GRAPHS"
"""Environment variable: the file with the way to decode, one of WAYS; beside it each replay adds a line, its size."""
WAYS = ("eager", "graphs", "unmixed graphs")
SIZES = [1, 2, 4, 8, 16]
MACHINE = {"context_length": 96, "max_running_requests": 16, "max_total_tokens": 2048}
"""Server arguments: attention that reads nothing on the host looks at all places."""


def decode(way: str) -> None:
    """Let the scheduler decode so from now on, and forget what was replayed."""
    file = Path(os.environ[FILE])
    file.write_text(way)
    _replayed(file).write_text("")


def replayed() -> list[int]:
    """Sizes of the graphs that were replayed since `decode`, one a step."""
    return [int(size) for size in _replayed(Path(os.environ[FILE])).read_text().split()]


def _replayed(file: Path) -> Path:
    return file.with_suffix(".replayed")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W + b, each row in the same order of sums whatever the batch: a CPU's matrix products have another for each."""
    out = (x[..., None, :] * weight).sum(-1)
    return out if bias is None else out + bias


class RowByRow:
    """torch, whose matrix product is `linear`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def matmul(x: Tensor, transposed: Tensor) -> Tensor:
        """x W."""
        return linear(x, transposed.T)


def attention() -> type:
    """sglang's own attention of a CPU, whose decoding step reads nothing on the host: over all places, masked."""
    from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend

    class Attention(TorchNativeAttnBackend):
        def init_cuda_graph_state(self, *_: Any) -> None: ...

        def init_forward_metadata_capture_cuda_graph(self, *_: Any) -> None: ...

        def init_forward_metadata_replay_cuda_graph(self, *_: Any, **__: Any) -> None: ...

        def get_cuda_graph_seq_len_fill_value(self) -> int:
            return 1

        def forward_decode(self, q: Tensor, k: Tensor, v: Tensor, layer: Any, batch: Any, save_kv_cache: bool = True):
            pool = batch.token_to_kv_pool
            pool.set_kv_buffer(layer, batch.out_cache_loc, k, v)
            at = batch.req_to_token_pool.req_to_token[batch.req_pool_indices].long()
            keys, values = pool.get_key_buffer(layer.layer_id)[at], pool.get_value_buffer(layer.layer_id)[at]
            groups, heads = layer.tp_k_head_num, layer.tp_q_head_num
            asked = q.view(-1, 1, groups, heads // groups, layer.head_dim)
            scores = (asked * keys[:, :, :, None]).sum(-1) * layer.scaling
            late = torch.arange(at.shape[1]) >= batch.seq_lens[:, None]
            share = torch.softmax(scores.masked_fill(late[:, :, None, None], -torch.inf), 1)
            return (share[..., None] * values[:, :, :, None]).sum(1).flatten(1)

    return Attention


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    yield
    setattr(owner, name, before)


def unmixed(self: Any, rows: Tensor, slot: Tensor) -> Tensor:
    """The lookup of a graph that doesn't mix."""
    return rows


def run_scheduler(*args: Any) -> None:
    """As the plugin's, with graphs of each kind."""
    from recorded_graphs import Stream, Torch

    from ngrpo.engines.sglang import cpu, hooks, state

    with hooks.quiet_import():
        cpu.prepare()
        from sglang.srt.layers import logits_processor
        from sglang.srt.layers.attention import torch_native_backend
        from sglang.srt.model_executor import cuda_graph_runner
        from sglang.srt.model_executor.model_runner import ModelRunner

    torch.set_num_threads(1)
    torch.nn.functional.linear = linear
    logits_processor.torch = RowByRow()
    torch_native_backend.TorchNativeAttnBackend = attention()

    @contextmanager
    def graph_capture() -> Iterator[Any]:
        yield type("Context", (), {"stream": Stream()})

    cuda_graph_runner.torch, cuda_graph_runner.graph_capture = Torch(), graph_capture
    cuda_graph_runner.tqdm.tqdm = type("Quiet", (list,), {"set_description": lambda *_: None})
    initialize: Callable = ModelRunner.initialize
    forward: Callable = ModelRunner.forward
    file = Path(os.environ[FILE])

    def initialized(runner: Any, *given: Any) -> None:
        initialize(runner, *given)
        runner.server_args.disable_cuda_graph, runner.server_args.cuda_graph_bs = False, SIZES
        mixed, plain, graphs = WAYS[1], WAYS[2], {WAYS[0]: None}
        runner.init_cuda_graphs()
        graphs[mixed] = runner.cuda_graph_runner
        with _replaced(state.MixState, "_next_input", unmixed):
            runner.init_cuda_graphs()
        graphs[plain] = runner.cuda_graph_runner
        runner.test_graphs = graphs

    def forwarded(runner: Any, batch: Any, *given: Any, **named: Any) -> Any:
        if hasattr(runner, "test_graphs"):
            runner.cuda_graph_runner = graphs = runner.test_graphs[file.read_text()]
            if graphs is not None and batch.forward_mode.is_decode() and graphs.can_run(batch):
                with _replayed(file).open("a") as lines:
                    lines.write(f"{next(size for size in graphs.capture_bs if size >= batch.batch_size)}\n")
        return forward(runner, batch, *given, **named)

    ModelRunner.initialize, ModelRunner.forward = initialized, forwarded
    hooks.run_scheduler(*args)
