"""What stock verl 0.5.0 needs to train without a GPU; on a GPU it is left as it is, but for float32 models (4).

1. Collectives: gloo in NCCL's place.
2. verl asks `torch.cpu` for what only `torch.cuda` has (memory figures, random state): small stand-ins.
3. The reference policy's parameters would be pinned, which needs an accelerator.
4. verl hard-codes bfloat16 autocast around the actor; here it gives way to plain float32, so that replay parity is as
   exact as the arithmetic.
"""

import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.distributed.distributed_c10d import init_process_group as _init_process_group
from torch.distributed.fsdp import CPUOffloadPolicy

from ngrpo.engines.model_folder import engine_dtype, model_config
from ngrpo.engines.sglang import newer
from ngrpo.gpu_memory import Budget, budget, shape_of
from ngrpo.training.verl.replacing import Replacement


def on_cpu() -> bool:
    """Whether this machine has no GPU that torch can use."""
    return not torch.cuda.is_available()


def devices() -> int:
    """GPUs of this node; without any, one CPU rank."""
    return torch.cuda.device_count() or 1


def init_with_gloo(backend: str | None = None, **arguments: Any) -> None:
    """torch.distributed's init_process_group, always with gloo: verl's workers name NCCL, which needs GPUs.

    The same collectives, slower. Without it no worker starts.
    """
    _init_process_group(backend="gloo", **arguments)


def gloo() -> str:
    """verl's get_nccl_backend: what the same name is without a GPU. Without it no worker starts."""
    return "gloo"


def unpinned_offload(pin_memory: bool = True) -> CPUOffloadPolicy:
    """verl's CPUOffloadPolicy for the reference policy, without pinned memory: pinning needs an accelerator.

    The same parameters in the same place. Without it the reference worker doesn't start.
    """
    return CPUOffloadPolicy(pin_memory=False)


def no_autocast(*_: Any, **__: Any) -> contextlib.nullcontext:
    """torch.autocast, which verl hard-codes as bfloat16 around the actor; here it gives way to plain float32.

    So that replay parity is as exact as the arithmetic; without it the test of parity at every step fails.
    """
    return contextlib.nullcontext()


def _no_memory(*_: Any) -> int:
    """Bytes in use, which nothing counts on a CPU; verl logs them."""
    return 0


def _memory_info(*_: Any) -> tuple[int, int]:
    """Free and total bytes: verl logs their quotient."""
    return 0, 1


def _nothing() -> None:
    """Empties no cache."""


def _name(*_: Any) -> str:
    """The device's name."""
    return "cpu"


_STAND_INS: dict[str, Callable] = {
    **dict.fromkeys(("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"), _no_memory),
    "mem_get_info": _memory_info,
    "empty_cache": _nothing,
    "get_device_name": _name,
    "get_rng_state": torch.get_rng_state,
    "set_rng_state": torch.set_rng_state,
    "manual_seed": torch.manual_seed,
}
"""What verl asks of torch.cpu because torch.cuda has it; the random state is the real one, so a resumed run goes on."""

_OURS = __name__
_IN_FLOAT32 = (Replacement("torch", "autocast", f"{_OURS}.no_autocast"),)
_ON_CPU = (
    *_IN_FLOAT32,
    Replacement("torch.distributed", "init_process_group", f"{_OURS}.init_with_gloo"),
    Replacement("verl.utils.device", "get_nccl_backend", f"{_OURS}.gloo"),
    Replacement("verl.workers.fsdp_workers", "get_nccl_backend", f"{_OURS}.gloo"),
    Replacement("verl.workers.fsdp_workers", "CPUOffloadPolicy", f"{_OURS}.unpinned_offload"),
)


EXACT = "NGRPO_FLOAT32"
"""Set in the workers of a run whose base model is float32: it is trained in plain float32 on a GPU, too."""


def replacements() -> tuple[Replacement, ...]:
    """What is replaced on this machine, for this run."""
    if on_cpu():
        return _ON_CPU
    return _IN_FLOAT32 if EXACT in os.environ else ()


def patch() -> None:
    """Make verl's workers run in this process without a GPU; call before a worker is built; again changes nothing."""
    newer.prepare()  # before verl looks for flash-attn
    for replacement in replacements():
        import_module(replacement.owner)  # all of verl first: what it imports of torch by name is stock
    for replacement in replacements():
        replacement.install()
    if on_cpu():
        for name, function in _STAND_INS.items():
            if not hasattr(torch.cpu, name):
                setattr(torch.cpu, name, function)


def worker_environment(ranks: int, dtype: str) -> dict[str, str]:
    """Environment variables of every Ray worker.

    ranks: on this node, which share the job's threads; dtype: the base model's.
    """
    common = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # models and data are local folders by now
        "WANDB_MODE": "disabled",
    }
    if not on_cpu():
        if dtype == "float32":
            common |= {EXACT: "1"}
        threads = int(os.environ.get("OMP_NUM_THREADS", "0")) // ranks
        return {**common, "OMP_NUM_THREADS": str(threads)} if threads else common
    return {**common, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "TORCHDYNAMO_DISABLE": "1"}


def ray_resources(ranks: int) -> dict[str, Any]:
    """Options of `ray start` for one node: without GPUs, as many pretended ones as there are ranks."""
    if not on_cpu():
        return {}
    return {"num_cpus": 4 + ranks, "num_gpus": ranks, "resources": {"cpu": ranks}, "object_store_memory": 512 << 20}


LOGITS = 1 << 26  # of one micro-batch on a CPU: 256 MB in float32, of which a backward pass holds a few copies


def micro_batch(sequences: int, logits: int) -> int:
    """The largest part of so many sequences, all parts equal, that fits a CPU's memory; logits: of one sequence."""
    most = max(1, LOGITS // logits)
    return next(n for n in range(min(sequences, most), 0, -1) if sequences % n == 0)


def engine_limits(requests: int, longest: int) -> dict[str, int]:
    """Room of a rollout engine for so many requests of at most `longest` tokens; a GPU's engine sizes itself."""
    return {"max_total_tokens": min(requests, 256) * longest, "max_running_requests": 256} if on_cpu() else {}


def budget_here(model: Path, gpus: int, longest: int, tensor_parallel: int) -> Budget:
    """What fits this node's GPUs, `gpus` of which train this model folder together."""
    card = torch.cuda.get_device_properties(0).total_memory
    held = KEPT if newer.stands_in() else 0.0
    return budget(card, gpus, shape_of(model_config(model)), longest, tensor_parallel, held)


def micro_batches(fits: Budget, aggregation: str) -> dict[str, Any]:
    """verl's micro-batches for a GPU, as dotted keys: as many tokens as fit.

    An average over responses doesn't depend on how they are parted. One over tokens does, in verl, so there updates are
    of two responses, whatever the GPU.
    """
    actor = "actor_rollout_ref.actor"
    by_tokens = aggregation.startswith("seq-mean")
    updates = {f"{actor}.use_dynamic_bsz": True, f"{actor}.ppo_max_token_len_per_gpu": fits.update_tokens}
    passes = {
        f"actor_rollout_ref.{role}.{key}": value
        for role in ("ref", "rollout")
        for key, value in (
            ("log_prob_use_dynamic_bsz", True),
            ("log_prob_max_token_len_per_gpu", fits.log_prob_tokens),
        )
    }
    return {**(updates if by_tokens else {f"{actor}.ppo_micro_batch_size_per_gpu": 2}), **passes}


def settings(
    sequences: int,
    mini_batch: int,
    logits: int,
    dtype: str,
    *,
    fits: Budget | None = None,
    aggregation: str = "seq-mean-token-mean",
) -> dict[str, Any]:
    """verl's settings that follow from the machine, as dotted keys.

    sequences: responses of a rollout batch on one rank; mini_batch: responses of an update on one rank; logits: of one
    longest sequence (tokens × vocabulary); dtype: the base model's; fits: `budget_here`, where half precision is
    trained; aggregation: of the loss. A float32 model, such as the toy's, is trained on a
    GPU as on a CPU: in plain float32, whose rounding its scale's parity limit is made for, and without flash-attn.
    """
    keeps = _kept_memory() if newer.stands_in() else {}
    if fits is not None:
        return {
            "trainer.device": "cuda",
            "actor_rollout_ref.model.use_remove_padding": True,
            "actor_rollout_ref.model.enable_gradient_checkpointing": True,
            **micro_batches(fits, aggregation),
            "actor_rollout_ref.actor.fsdp_config.optimizer_offload": fits.optimizer_offload,
            "actor_rollout_ref.rollout.dtype": engine_dtype(dtype, on_cpu=False),
            "actor_rollout_ref.rollout.gpu_memory_utilization": fits.engine_fraction,
            **keeps,
        }
    full = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    plain = {
        "actor_rollout_ref.model.use_remove_padding": False,
        "actor_rollout_ref.model.enable_gradient_checkpointing": False,
        "actor_rollout_ref.model.override_config": {"attn_implementation": "eager", "_attn_implementation": "eager"},
        "actor_rollout_ref.actor.use_torch_compile": False,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": micro_batch(mini_batch, logits),
        "actor_rollout_ref.actor.fsdp_config.mixed_precision": full,
        "actor_rollout_ref.ref.fsdp_config.mixed_precision": full,
        "actor_rollout_ref.ref.fsdp_config.model_dtype": "fp32",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": micro_batch(sequences, logits),
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": micro_batch(sequences, logits),
        "actor_rollout_ref.rollout.dtype": engine_dtype(dtype, on_cpu=on_cpu()),
    }
    if on_cpu():
        return {"trainer.device": "cpu", **plain, "actor_rollout_ref.rollout.free_cache_engine": False}
    return {"trainer.device": "cuda", **plain, "actor_rollout_ref.rollout.gpu_memory_utilization": 0.7, **keeps}


KEPT = 0.25
"""Of a GPU's memory, for an engine that can't give it to the trainer and take it back."""


def _kept_memory() -> dict[str, Any]:
    """verl's settings where torch-memory-saver, built for the paper's torch, isn't there."""
    rollout = "actor_rollout_ref.rollout"
    return {f"{rollout}.free_cache_engine": False, f"{rollout}.gpu_memory_utilization": KEPT}
