"""A tiny model, a padded batch with its records, and verl's actor on them, without Ray; and the same in plain torch."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from transformers import Qwen2Config, Qwen2ForCausalLM

from ngrpo.method import rng
from ngrpo.method.mixers import WEIGHT_SCALE, quantize
from ngrpo.method.records import Noise, Origin, Record
from ngrpo.training.verl import accelerator

B, P, T, K, V, D = 8, 6, 10, 3, 200, 32
TEMPERATURE = 0.7


@pytest.fixture(scope="module", autouse=True)
def process_group():
    """A process group of one, and the accelerator module's shims, which stock verl needs here too."""
    accelerator.patch()
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'group'}", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def make_model(tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied, initializer_range=0.3, attn_implementation="eager",
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def actor_config(**changes):
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer").actor_rollout_ref.actor
    OmegaConf.set_struct(config, False)
    config.update(
        use_torch_compile=False, ppo_mini_batch_size=B, ppo_micro_batch_size_per_gpu=B // 2, use_kl_loss=False,
        entropy_coeff=0.0, use_remove_padding=False, use_fused_kernels=False, loss_agg_mode="seq-mean-token-mean",
    )  # fmt: skip
    config.update(changes)
    return config


def padded_batch():
    """Left- and right-padded sequences, with a mixture at about half of the response positions that feed anything."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(3, V, (B, P + T), generator=g)
    mask = torch.ones(B, P + T, dtype=torch.long)
    for row in range(B):
        mask[row, : row % 4] = 0
        mask[row, P + T - row % 5 :] = 0 if row % 5 else 1
    ids[mask == 0] = 0
    lengths = mask[:, P:].sum(-1).tolist()
    records = []
    for row, length in enumerate(lengths):
        index = (torch.rand(length, generator=g) < 0.5).nonzero()[:, 0]
        candidates = torch.randint(3, V, (len(index), K), generator=g)
        weights = quantize(torch.softmax(torch.randn(len(index), K, generator=g), -1))
        response = ids[row, P : P + length].tolist()
        records.append(
            Record.of(response, index.tolist(), candidates.tolist(), weights.tolist(), k=K, origin=Origin(row, P))
        )
    tensors = {
        "input_ids": ids,
        "responses": ids[:, P:],
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "response_mask": mask[:, P:],
    }
    return tensors, records


TENSORS, RECORDS = padded_batch()
MASK = TENSORS["response_mask"].bool()


def make_data(records=RECORDS, **tensors):
    from verl import DataProto

    from ngrpo.training.verl.actor import KEY, SEEDS

    extra = {} if records is None else {KEY: np.array([r.pack() for r in records], dtype=object)}
    tensors = {SEEDS: torch.arange(B), **tensors}
    meta = {"micro_batch_size": B // 2, "temperature": TEMPERATURE, "use_dynamic_bsz": False, "max_token_len": 40}
    return DataProto.from_dict({**TENSORS, **tensors}, non_tensors=extra, meta_info=meta)


def noise_record(row: int, length: int, noise: Noise | None) -> Record:
    """A response's record that holds noise alone, or nothing."""
    text = TENSORS["responses"][row, :length].tolist()
    return Record.of(text, [], [], [], k=1, origin=Origin(row, 17), noise=noise)


def make_actor(kind=None, model=None, **config):
    from ngrpo.training.verl.actor import ReplayActor

    model = model or make_model()
    return (kind or ReplayActor)(actor_config(**config), model, torch.optim.AdamW(model.parameters(), lr=1e-2))


def plain_inputs(model, records) -> torch.Tensor:
    """Input embeddings (B, P + T) by plain arithmetic."""
    E = model.get_input_embeddings()
    fed = E(TENSORS["input_ids"]).clone()
    for row, record in enumerate(records):
        for at, ids, weights in zip(record.index, record.ids, record.weights, strict=True):
            fed[row, P + at] = (
                torch.tensor(weights / WEIGHT_SCALE, dtype=torch.float32)[:, None] * E(torch.tensor(ids))
            ).sum(0)
        if record.noise is not None:
            for at in range(record.length - 1):
                key = torch.tensor([record.origin.seed]), torch.tensor([record.origin.start + at])
                fed[row, P + at] = fed[row, P + at] + float(record.noise.sigma[0]) * rng.normal(*key, D)[0]
    return fed


def plain_distributions(model, records) -> torch.Tensor:
    """Log-probs of all tokens (B, T, V) by plain transformers on inputs_embeds."""
    fed = plain_inputs(model, records)
    logits = model(
        inputs_embeds=fed, attention_mask=TENSORS["attention_mask"], position_ids=TENSORS["position_ids"]
    ).logits
    return torch.log_softmax(logits[:, P - 1 : -1] / TEMPERATURE, -1)


def plain_log_probs(model, records) -> torch.Tensor:
    """Log-probs (B, T) of the responses by plain transformers on inputs_embeds."""
    lp = plain_distributions(model, records)
    return lp.gather(-1, TENSORS["responses"][..., None])[..., 0]
