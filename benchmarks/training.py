"""Records and their replay in training: bytes against dense tensors, and a step against stock verl's.

The step is what an actor does with one rollout batch: old log-probs, then an update of several mini-batches. Ours
replays records at ρ=0.1, the peer is verl's own DataParallelPPOActor on the same batch without them; both run in this
process, interleaved, on one small model.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import row

ENV = "train"
NAMES = ("records", "training-step")
RHO, K = 0.1, 3
SEQUENCES, PROMPT, RESPONSE = 32, 32, 224
VOCABULARY, HIDDEN, LAYERS = 8192, 256, 4
ROUNDS = 5


def rows(names: tuple[str, ...] = NAMES) -> Iterator[dict[str, Any]]:
    """The rows of these names."""
    if "records" in names:
        yield _record_bytes()
    if "training-step" in names:
        yield _step()


def _records(responses: Any) -> list[bytes]:
    """A packed record at ρ for each response (B, T)."""
    import numpy as np

    from ngrpo.method.mixers import WEIGHT_SCALE
    from ngrpo.method.records import Origin, Record

    random = np.random.default_rng(0)
    packed = []
    for seed, response in enumerate(responses.tolist()):
        index = np.flatnonzero(random.random(len(response)) < RHO)
        ids = random.integers(0, VOCABULARY, (len(index), K))
        rest = random.integers(0, WEIGHT_SCALE // K, (len(index), K - 1))
        weights = np.concatenate([WEIGHT_SCALE - rest.sum(-1, keepdims=True), rest], 1)
        steps = index.tolist(), ids.tolist(), weights.tolist()
        packed.append(Record.of(response, *steps, k=K, origin=Origin(seed, 0)).pack())
    return packed


def _record_bytes() -> dict[str, Any]:
    import torch

    batch, length = 64, 8192
    ours = sum(map(len, _records(torch.randint(VOCABULARY, (batch, length)))))
    peer = batch * length * K * (4 + 8)  # a float32 weight and an int64 id for every candidate of every step
    note = f"{batch} responses of {length} tokens, k={K}, rho={RHO}; peer: dense float32 and int64 (B, T, k)"
    return row("records", ours=ours / 1e6, peer=peer / 1e6, unit="MB", ratio=ours / peer, at_most=1 / 8, note=note)


def _step() -> dict[str, Any]:
    import torch.distributed as dist
    from verl.workers.actor.dp_actor import DataParallelPPOActor

    from ngrpo.training.verl import accelerator

    accelerator.patch()
    from ngrpo.training.verl.actor import ReplayActor

    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'group'}", rank=0, world_size=1)
        batch, packed = _batch()
        steps = {name: _stepper(kind, batch, r) for name, kind, r in (
            ("ours", ReplayActor, packed), ("peer", DataParallelPPOActor, None))}  # fmt: skip
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for turn in range(ROUNDS + 1):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                if turn:  # the first of each warms up
                    times[name].append(time.perf_counter() - began)
        dist.destroy_process_group()
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["peer"], strict=True))
    note = f"{SEQUENCES} sequences of {PROMPT}+{RESPONSE} tokens, d={HIDDEN}, V={VOCABULARY}; median of {ROUNDS} pairs"
    return row(
        "training-step", ours=statistics.median(times["ours"]), peer=statistics.median(times["peer"]),
        unit="s", ratio=ratio, at_most=1.05, note=note,
    )  # fmt: skip


def _batch() -> tuple[dict[str, Any], list[bytes]]:
    import torch

    torch.manual_seed(0)
    ids = torch.randint(VOCABULARY, (SEQUENCES, PROMPT + RESPONSE))
    mask = torch.ones_like(ids)
    batch = {
        "input_ids": ids,
        "responses": ids[:, PROMPT:],
        "attention_mask": mask,
        "position_ids": mask.cumsum(-1) - 1,
        "response_mask": mask[:, PROMPT:],
        "advantages": torch.randn(SEQUENCES, 1).expand(-1, RESPONSE).contiguous(),
    }
    return batch, _records(batch["responses"])


def _stepper(kind: type, batch: dict[str, Any], packed: list[bytes] | None):
    """A function that does one step on an actor of this kind."""
    import numpy as np
    import torch
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from verl import DataProto

    from ngrpo.training.verl.actor import KEY

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=LAYERS,
            num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa",
        )
    )  # fmt: skip
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer").actor_rollout_ref.actor
    OmegaConf.set_struct(config, False)
    config.update(
        use_torch_compile=False, ppo_mini_batch_size=SEQUENCES // 4, ppo_micro_batch_size_per_gpu=SEQUENCES // 4,
        use_kl_loss=False, entropy_coeff=0.0, use_remove_padding=False, use_fused_kernels=False,
        loss_agg_mode="seq-mean-token-mean",
    )  # fmt: skip
    actor = kind(config, model, torch.optim.AdamW(model.parameters(), lr=1e-6))
    meta = {"micro_batch_size": SEQUENCES // 4, "temperature": 1.0, "use_dynamic_bsz": False, "max_token_len": None}
    extra = {} if packed is None else {KEY: np.array(packed, dtype=object)}

    def step() -> None:
        data = DataProto.from_dict(dict(batch), non_tensors=dict(extra), meta_info=dict(meta))
        old, _ = actor.compute_log_prob(data, calculate_entropy=True)
        data.batch["old_log_probs"] = old
        actor.update_policy(data)

    return step
