"""CUDA graphs without a GPU: what runs during a capture is recorded, and a replay runs the record, not the Python.

As on a GPU a replay reads and writes the very tensors of the capture, so what isn't in them by then doesn't count;
fresh memory holds rubbish; and reading a value on the host during a capture is an error.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from launches import EMPTY, reads_host
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph:
    """Stands in for torch.cuda.CUDAGraph. steps: what a replay does, in order."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], Any]] = []
        self.replays = 0

    def pool(self) -> None:
        """There is no memory to share between graphs."""

    def replay(self) -> None:
        """Do again, to the same tensors, what was done during the capture."""
        self.replays += 1
        with torch.no_grad():
            for step in self.steps:
                step()


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in it."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def spoil(fresh: list[Tensor]) -> None:
    """Fill with what nobody may rely on."""
    for tensor in fresh:
        tensor.fill_(torch.nan if tensor.is_floating_point() else 77)


class Recorder(TorchDispatchMode):
    """Adds every operation to a graph."""

    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if reads_host(func, args):
            raise RuntimeError(f"{func._schema.name} isn't allowed while a graph is captured")
        out = func(*args, **kwargs)
        if func._schema.name in EMPTY:
            self.graph.steps.append(lambda: spoil(tensors(out)))
        elif any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments):
            self.graph.steps.append(lambda: func(*args, **kwargs))
        else:
            known = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
            made = [i for i, t in enumerate(tensors(out)) if t.untyped_storage().data_ptr() not in known]
            if made:  # else a view, which a replay finds as it is
                self.graph.steps.append(lambda: _again(func, args, kwargs, tensors(out), made))
        return out


def _again(func: Any, args: tuple, kwargs: dict, out: list[Tensor], made: list[int]) -> None:
    """Compute once more, into the tensors of the capture."""
    new = tensors(func(*args, **kwargs))
    for i in made:
        out[i].copy_(new[i])


@contextmanager
def capture(graph: RecordedGraph, **_: Any) -> Iterator[None]:
    """Stands in for torch.cuda.graph."""
    with Recorder(graph):
        yield


class Stream:
    """Stands in for the stream of a capture."""


class Cuda:
    """Stands in for torch.cuda where sglang captures its graphs."""

    CUDAGraph = RecordedGraph
    graph = staticmethod(capture)

    @staticmethod
    def synchronize() -> None:
        """A CPU is done when it returns."""


class Torch:
    """torch, whose device "cuda" is the CPU, and whose graphs are recorded."""

    cuda = Cuda()

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(name: str) -> torch.device:
        """The CPU."""
        return torch.device("cpu")
