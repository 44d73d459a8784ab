"""What stock sglang 0.4.6.post5 needs to run without a GPU; a GPU sees nothing of it (but see `newer`, `unusual`).

1. `sgl_kernel` and `vllm` are imported but not used on CPU: stand-ins are put on the path (stubs/).
2. torch.compile would look for a C++ tool chain: off.
3. Weights sent to the engine are moved to the current CUDA device: they stay where they are.
4. All-reduce on CPU tensors wants Intel's extension: gloo, through the forward pass's own group. The scheduler hands
   requests round through the other group, from another thread: on one group the two would wait for each other.
5. Server arguments that name GPU kernels; the key-value pool would take most of the memory: it gets a size.
6. An idle scheduler spins; on a few cores it would take one from the trainer: it naps.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from ngrpo.engines.sglang import newer, unusual
from ngrpo.engines.sglang.unusual import STUBS

NAP = 0.001  # seconds that an idle scheduler sleeps between two looks at its queue

# Not to be overridden: they name kernels that a CPU doesn't have.
_FORCED = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "mm_attention_backend": None,
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
    "disable_cuda_graph": True,
    "enable_memory_saver": False,
    "disable_custom_all_reduce": True,
}
_DEFAULTS = {"dtype": "float32", "max_total_tokens": 16384, "max_running_requests": 64}
GPU_DEFAULTS: dict[str, Any] = {}
"""Server arguments of every engine on a GPU that doesn't name them: none, so each takes what is free of its card. Who
starts several on one card says less here, as the tests do."""


def on_cpu() -> bool:
    """Whether this machine has no GPU that torch can use."""
    return not torch.cuda.is_available()


def prepare() -> None:
    """Make `import sglang` work here; call before its first import, in the parent (children inherit it)."""
    if not on_cpu():
        return
    if str(STUBS) not in sys.path:
        sys.path.append(str(STUBS))
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    os.environ.setdefault("SGL_DISABLE_TP_MEMORY_INBALANCE_CHECK", "true")  # sic: sglang spells it so
    torch.multiprocessing.set_sharing_strategy("file_system")  # tensor-parallel ranks open each other's tensors by name


def patch() -> None:
    """Replace, in this process, the three functions that ask for a GPU; call after sglang can be imported."""
    if not on_cpu():
        return
    import sglang.srt.distributed.parallel_state as parallel
    import sglang.srt.model_executor.model_runner as runner
    from sglang.srt.managers.scheduler import Scheduler

    def unwrap(tensor: Any, tp_rank: int) -> torch.Tensor:
        return tensor.get(tp_rank) if isinstance(tensor, runner.LocalSerializedTensor) else tensor

    def all_reduce(group: Any, tensor: torch.Tensor) -> torch.Tensor:
        if group.world_size > 1:
            torch.distributed.all_reduce(tensor, group=group.device_group)
        return tensor

    def check_memory(scheduler: Any, stock: Any = Scheduler.check_memory) -> None:
        stock(scheduler)
        time.sleep(NAP)

    runner._unwrap_tensor = unwrap
    parallel.GroupCoordinator.all_reduce = all_reduce
    parallel.supports_custom_op = lambda: False
    if not hasattr(Scheduler.check_memory, "naps"):
        check_memory.naps = True
        Scheduler.check_memory = check_memory


def server_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """These server arguments, made to fit this machine."""
    if not on_cpu():
        return newer.server_arguments(unusual.server_arguments({**GPU_DEFAULTS, **given}))
    return {**_DEFAULTS, **{k: v for k, v in given.items() if v not in (None, "auto")}, **_FORCED}
