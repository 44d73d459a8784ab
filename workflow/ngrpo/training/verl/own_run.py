"""Neighbor mixing in a verl run of your own: your data, rewards, configuration and loop; our rollout, replay, guards.

`mixing` adds to verl's configuration what the rollout must know, `runtime_env` is for `ray.init`, and verl's own
`run_ppo` does the rest (docs/in-your-own-code.md). What a study has besides isn't here: whole checkpoints, the best
policy, data orders, metrics.jsonl.
"""

from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.mixing import MixerConfig, settings
from ngrpo.terminal import echo
from ngrpo.training.verl import accelerator

ROLLOUT = "ngrpo-sglang"
"""The rollout's name in verl's configuration: stock verl knows none of that name, and so can't go on without mixing."""
_REQUIRED = {
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.ref.strategy": "fsdp2",
    "actor_rollout_ref.rollout.mode": "sync",
    "actor_rollout_ref.rollout.multi_turn.enable": False,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.calculate_log_probs": True,
    "trainer.balance_batch": True,
}
"""What replay and its guards need of verl's settings; `mixing` says which ones it has changed."""


def mixing(config: Any, mixer: MixerConfig, *, neighbors: str | Path | None = None, seed: int = 1) -> Any:
    """verl's configuration (an OmegaConf of `ppo_trainer`), changed in place: its rollout mixes, its actor replays.

    mixer: such as `NeighborMixer(kind="neighbors", rho=0.1)` of `ngrpo.study.mixing`; neighbors: its table's file;
    seed: of all requests' draws. Raises UserError where a table is needed and missing, and for a mixer that can't be
    replayed.
    """
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    if mixer.needs_table and (neighbors is None or not Path(neighbors).is_file()):
        raise UserError(
            "this mixer looks neighbors up and there is no table" + (f" {neighbors}" if neighbors else ""),
            where="mixing(neighbors=…)",
            do="make one: ngrpo.method.neighbor_table.build(E, k).save(path)",
        )
    if mixer.dense:
        raise UserError(
            "a mixture of the whole vocabulary can't be replayed", where=f"mixing({mixer.kind})", do="set keep"
        )
    OmegaConf.set_struct(config, False)
    rollout, data, trainer = config.actor_rollout_ref.rollout, config.data, config.trainer
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path, trust_remote_code=False)
    ranks = trainer.n_gpus_per_node * trainer.nnodes
    requests = data.train_batch_size * rollout.n // ranks * rollout.tensor_model_parallel_size
    own = {
        "seed": seed,
        "neighbors": str(Path(neighbors).resolve()) if neighbors is not None else None,
        "exploration": settings(mixer, tokenizer.get_vocab()),
        "refresh": getattr(mixer, "refresh", None),
        "space": getattr(mixer, "space", None) or "embedding",
        "engine_limits": accelerator.engine_limits(requests, data.max_prompt_length + data.max_response_length),
    }
    for key, value in _REQUIRED.items():
        if (given := OmegaConf.select(config, key)) != value:
            echo(f"[mixing] {key}: {value}, in place of {given}")
            OmegaConf.update(config, key, value, force_add=True)
    rollout.name = ROLLOUT
    OmegaConf.update(config, "actor_rollout_ref.rollout.ngrpo", own, force_add=True)
    return config


def runtime_env() -> dict[str, Any]:
    """`ray.init`'s runtime_env: verl's own, and `install` in every worker process."""
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    return {**get_ppo_ray_runtime_env(), "worker_process_setup_hook": f"{__name__}.install"}


def install() -> None:
    """Change this process's verl, as `plugin.install` does for a study's run, but for the trainer and its figures."""
    from ngrpo.training.verl import plugin

    plugin.install(plugin.OWN_RUN)
