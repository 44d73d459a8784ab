"""A run's spec as verl's configuration. Science comes from the spec, the machine's part from `accelerator`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.study.layout import RunFiles
from ngrpo.study.mixing import settings as mixer_settings
from ngrpo.study.objective import Objective
from ngrpo.study.run_log import planned_steps
from ngrpo.study.specs import RunSpec
from ngrpo.training.verl import accelerator

VERLS_OWN = {"grpo": "vanilla"}
"""The objectives whose loss verl has itself, and its names; here, because `losses` imports verl, and so Ray."""


def total_steps(spec: RunSpec, problems: int) -> int:
    """Optimization steps of the run: as given, or whole batches of so many epochs. Raises UserError for none."""
    steps = planned_steps(spec.training, problems)
    if problems < spec.training.batch_prompts or steps < 1:
        raise UserError(
            f"{problems} training problems don't fill one batch of {spec.training.batch_prompts}",
            where=f"run {spec.id}: training.batch_prompts",
            do="lower batch_prompts, or find more problems",
        )
    return steps


def science(spec: RunSpec, steps: int) -> dict[str, Any]:
    """verl's settings that follow from the spec, as dotted keys."""
    t, o, v = spec.training, spec.objective, spec.validation_decoding
    return {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": o.by_std,
        "algorithm.use_kl_in_reward": False,
        "data.train_batch_size": t.batch_prompts,
        "data.max_prompt_length": t.max_prompt_tokens,
        "data.max_response_length": t.max_response_tokens,
        "actor_rollout_ref.actor.optim.lr": t.learning_rate,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": t.warmup_steps,
        "actor_rollout_ref.actor.optim.weight_decay": t.weight_decay,
        "actor_rollout_ref.actor.ppo_mini_batch_size": t.mini_batch_prompts,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.policy_loss.loss_mode": VERLS_OWN.get(o.kind, o.kind),
        "actor_rollout_ref.actor.clip_ratio_low": o.clip[0],
        "actor_rollout_ref.actor.clip_ratio_high": o.clip[1],
        "actor_rollout_ref.actor.clip_ratio_c": o.dual or 3.0,
        "actor_rollout_ref.actor.grad_clip": 1.0,
        "actor_rollout_ref.actor.loss_agg_mode": o.aggregation,
        "actor_rollout_ref.actor.entropy_coeff": o.entropy_coefficient or 0,
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": o.kl_coefficient,
        "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
        "actor_rollout_ref.rollout.n": t.group,
        "actor_rollout_ref.rollout.temperature": t.temperature,
        "actor_rollout_ref.rollout.top_p": 1.0,
        "actor_rollout_ref.rollout.top_k": -1,
        "actor_rollout_ref.rollout.val_kwargs.n": t.validation_samples,
        "actor_rollout_ref.rollout.val_kwargs.do_sample": True,
        "actor_rollout_ref.rollout.val_kwargs.temperature": v.temperature,
        "actor_rollout_ref.rollout.val_kwargs.top_p": v.top_p,
        "trainer.balance_batch": True,
        "trainer.total_training_steps": steps,
        "trainer.test_freq": t.validate_every,
        **({"actor_rollout_ref.actor.ngrpo": own} if (own := of_actor(o)) else {}),
    }


def of_actor(objective: Objective) -> dict[str, Any]:
    """What our actor, and a loss that we register with verl, are told beside verl's settings."""
    cap = objective.rollout_is_threshold
    own = {} if cap is None else {"rollout_is_threshold": cap}
    if objective.kind in VERLS_OWN:
        return own
    return {**own, "dual_clip": objective.dual, "policy_aggregation": objective.policy}


@dataclass(frozen=True)
class Ranks:
    """How a run is laid out. devices: GPUs of a node, or CPU ranks; tensor_parallel: of them to a rollout engine.

    None of it changes what is drawn: seeds count rows of the whole batch, and all ranks of an engine draw alike.
    """

    devices: int = 1
    tensor_parallel: int = 1
    nodes: int = 1

    @property
    def total(self) -> int:
        """Ranks of all nodes."""
        return self.devices * self.nodes

    def check(self, spec: RunSpec) -> None:
        """Raise UserError where engines or batches don't divide."""
        t = spec.training
        if self.devices < 1 or self.tensor_parallel < 1 or self.devices % self.tensor_parallel:
            raise UserError(
                f"{self.devices} devices don't make engines of {self.tensor_parallel}",
                where="--devices, --tensor-parallel",
                do="choose a tensor_parallel that divides devices",
            )
        for name, prompts in (("batch_prompts", t.batch_prompts), ("mini_batch_prompts", t.mini_batch_prompts)):
            if prompts * t.group % self.total:
                raise UserError(
                    f"{prompts} prompts × {t.group} responses don't divide among {self.total} devices",
                    where=f"run {spec.id}: training.{name}",
                    do="choose --devices that divides them: the batch is the paper's, the devices are yours",
                )


@dataclass(frozen=True)
class RunInputs:
    """The files that a run's spec names. neighbors: the table, None where nothing mixes neighbors."""

    model: Path
    data: Path
    validation: Path
    neighbors: Path | None

    def resolved(self) -> "RunInputs":
        """The same, as absolute paths: Ray's workers have a folder of their own."""
        paths = {name: path.resolve() if path else None for name, path in vars(self).items()}
        return dataclasses.replace(self, **paths)


@dataclass(frozen=True)
class Saving:
    """When checkpoints are made: every so many steps and minutes; ends: when the job's time is over (epoch seconds)."""

    steps: int
    minutes: float
    ends: float | None


def _file_of(name: str) -> str:
    """The path of one of this package's modules, for verl's settings that take a file."""
    return str(Path(__file__).parent / f"{name}.py")


def plumbing(inputs: RunInputs, run: RunFiles, ranks: Ranks, save_every: int) -> dict[str, Any]:
    """verl's settings that are neither science nor machine, as dotted keys."""
    return {
        "data.train_files": str(inputs.data),
        "data.val_files": str(inputs.validation),
        "data.dataloader_num_workers": 0,
        "data.validation_shuffle": False,
        "data.custom_cls.path": _file_of("problems"),
        "data.custom_cls.name": "Problems",
        "data.sampler.class_path": _file_of("problems"),
        "data.sampler.class_name": "Order",
        "actor_rollout_ref.model.path": str(inputs.model),
        "actor_rollout_ref.model.trust_remote_code": False,
        "data.trust_remote_code": False,
        "actor_rollout_ref.actor.strategy": "fsdp2",  # FSDP1 refuses a CPU; one strategy everywhere, tested everywhere
        "actor_rollout_ref.ref.strategy": "fsdp2",
        "critic.strategy": "fsdp2",
        "actor_rollout_ref.rollout.name": "sglang",
        "actor_rollout_ref.rollout.mode": "sync",
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": ranks.tensor_parallel,
        "reward_model.reward_manager": "batch",
        "custom_reward_function.path": _file_of("reward"),
        "custom_reward_function.name": "compute_scores",
        "trainer.n_gpus_per_node": ranks.devices,
        "trainer.nnodes": ranks.nodes,
        "trainer.logger": ["console"],
        "trainer.total_epochs": 1,  # the data order holds all epochs
        "trainer.val_before_train": False,
        "trainer.save_freq": save_every,
        "trainer.resume_mode": "auto",
        "trainer.default_local_dir": str(run.checkpoints),
        "trainer.project_name": "ngrpo",
        "trainer.experiment_name": "run",
    }


def own_settings(
    spec: RunSpec,
    inputs: RunInputs,
    run: RunFiles,
    *,
    ranks: Ranks,
    saving: Saving,
    steps: int,
    lease: dict[str, Any],
    vocabulary: dict[str, int],
) -> dict[str, Any]:
    """What our parts in verl read, below keys `ngrpo` of verl's. Raises UserError for a missing table."""
    t = spec.training
    exploration = mixer_settings(spec.exploration, vocabulary)
    if spec.exploration.needs_table and inputs.neighbors is None:
        raise UserError("exploration mixes neighbors and no table is given", where=f"run {spec.id}", do="--neighbors")
    identity = {"run_dir": str(run.folder), "spec": str(run.spec), "spec_digest": spec.digest, "seed": spec.seed}
    requests = t.batch_prompts * t.group // ranks.total * ranks.tensor_parallel
    return {
        "data.ngrpo": {**identity, "validation": str(inputs.validation), "steps": steps},
        "trainer.ngrpo": {
            **identity,
            "parity_limit": t.parity_limit,
            "reward": spec.objective.reward or "correct",
            "overlong_share": spec.objective.overlong_share,
            "equal_groups": spec.objective.equal_groups,
            "validation_ties": t.validation_ties or "earlier",
            "idle_steps": t.idle_steps,
            "checkpoint_minutes": saving.minutes,
            "ends": saving.ends,
            "lease": lease,
        },
        "actor_rollout_ref.rollout.ngrpo": {
            **identity,
            "neighbors": str(inputs.neighbors) if inputs.neighbors else None,
            "exploration": exploration,
            "refresh": getattr(spec.exploration, "refresh", None),
            "space": getattr(spec.exploration, "space", None) or "embedding",
            "engine_limits": accelerator.engine_limits(requests, t.max_prompt_tokens + t.max_response_tokens),
        },
    }


def compose(
    spec: RunSpec,
    inputs: RunInputs,
    run: RunFiles,
    *,
    ranks: Ranks,
    saving: Saving,
    steps: int,
    lease: dict[str, Any],
    vocabulary: dict[str, int] | None = None,
) -> Any:
    """verl's whole configuration for this run (an OmegaConf).

    steps: optimization steps in all; lease: who holds the run folder (`Lease.holder`); vocabulary: token → id, None: as
    the model's tokenizer has it. Raises UserError where batches don't divide, or a table is needed and missing.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    t = spec.training
    vocabulary = vocabulary or AutoTokenizer.from_pretrained(inputs.model, trust_remote_code=False).get_vocab()
    own = own_settings(spec, inputs, run, ranks=ranks, saving=saving, steps=steps, lease=lease, vocabulary=vocabulary)
    ranks.check(spec)
    sequences = t.batch_prompts * t.group // ranks.total
    longest, dtype, mini_batch = (
        t.max_prompt_tokens + t.max_response_tokens,
        spec.model.model.dtype,
        t.mini_batch_prompts,
    )
    halves = not accelerator.on_cpu() and dtype != "float32"
    fits = accelerator.budget_here(inputs.model, ranks.total, longest, ranks.tensor_parallel) if halves else None
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = hydra_compose("ppo_trainer")
    OmegaConf.set_struct(config, False)
    parts = (
        science(spec, steps),
        plumbing(inputs, run, ranks, saving.steps),
        accelerator.settings(
            sequences,
            mini_batch * t.group // ranks.total,
            longest * len(vocabulary),
            dtype,
            fits=fits,
            aggregation=spec.objective.policy or spec.objective.aggregation,
        ),
        own,
    )
    for part in parts:
        for key, value in part.items():
            OmegaConf.update(config, key, value, merge=True, force_add=True)
    return config
