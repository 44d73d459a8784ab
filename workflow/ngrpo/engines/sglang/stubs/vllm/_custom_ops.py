"""vllm's kernels, none of which runs on this machine: importing a name works, calling it says so."""

from collections.abc import Callable


def __getattr__(name: str) -> Callable:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(f"vllm._custom_ops.{name} needs a GPU build of vllm")

    return missing
