"""Each step's metrics, under our names, one JSON object a line; replay parity, and the limit that stops a run.

Parity is what the field calls the rollout–trainer mismatch: how far the log-probs that the rollout engine had when it
drew a token are from those that the trainer computes for it with the same weights.

| name | meaning |
|---|---|
| reward/mean, reward/no_answer, reward/grader_error | shares of the batch's responses |
| response/length, response/truncated | tokens, mean; share that reached the limit |
| policy/… | entropy, kl (to the base model), kl_to_old, clipped, loss, gradient_norm, learning_rate of the update |
| parity/max, parity/mean | absolute difference of rollout's and replayed log-probs, before the update |
| mixing/share | share of fed steps that were mixed |
| mixing/cosine_mean, mixing/cosine_min, mixing/cosine_below_0.95 | of ẽ and E[v*] (Appendix E) |
| validation/score | mean over validation problems and samples, on validation steps |
| seconds/… | wall time of the step and its phases |
"""

import json
import math
import os
from typing import Any

from verl.trainer.ppo.metric_utils import compute_data_metrics as stock_metrics

from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.method.records import Record
from ngrpo.study.layout import RunFiles
from ngrpo.training.verl.actor import KEY, STATISTICS

_NAMES = {
    "critic/score/mean": "reward/mean",
    "response_length/mean": "response/length",
    "response_length/clip_ratio": "response/truncated",
    "actor/entropy": "policy/entropy",
    "actor/kl_loss": "policy/kl",
    "actor/ppo_kl": "policy/kl_to_old",
    "actor/pg_clipfrac": "policy/clipped",
    "actor/pg_loss": "policy/loss",
    "actor/grad_norm": "policy/gradient_norm",
    "actor/lr": "policy/learning_rate",
    "timing_s/step": "seconds/step",
    "timing_s/gen": "seconds/rollout",
    "timing_s/reward": "seconds/reward",
    "timing_s/old_log_prob": "seconds/log_prob",
    "timing_s/ref": "seconds/reference",
    "timing_s/update_actor": "seconds/update",
    "timing_s/testing": "seconds/validation",
    "timing_s/save_checkpoint": "seconds/checkpoint",
}
_OWN = ("parity/", "mixing/", "reward/", "validation/")


def parity(batch: Any) -> tuple[float, float]:
    """Largest and mean |rollout − replayed| log-prob over the response tokens of a batch."""
    mask = batch.batch["response_mask"].bool()
    difference = (batch.batch["rollout_log_probs"] - batch.batch["old_log_probs"]).abs()[mask]
    return float(difference.max()), float(difference.double().mean())


def check_parity(batch: Any, limit: float, step: int) -> None:
    """Raise UserError where rollout and trainer disagree by more than the limit."""
    most, mean = parity(batch)
    if not most <= limit:
        raise UserError(
            f"replayed log-probs differ from the rollout's by up to {most:.3g} (mean {mean:.3g})",
            where=f"step {step}",
            do=f"the run stops at training.parity_limit = {limit:g}; checkpoints up to here are kept",
        )


def batch_metrics(batch: Any) -> dict[str, float]:
    """What verl doesn't measure: parity, mixing, grades."""
    most, mean = parity(batch)
    metrics = {"parity/max": most, "parity/mean": mean}
    for name in ("no_answer", "grader_error"):
        if name in batch.non_tensor_batch:
            metrics[f"reward/{name}"] = float(batch.non_tensor_batch[name].astype(float).mean())
    records = [Record.unpack(packed) for packed in batch.non_tensor_batch[KEY]]
    fed = sum(r.length - 1 for r in records)
    noisy = sum(r.length - 1 for r in records if r.noise is not None)
    metrics["mixing/share"] = (noisy or sum(len(r.index) for r in records)) / max(1, fed)
    statistics = batch.batch[STATISTICS]
    count, total, below = (float(statistics[:, column].sum()) for column in (0, 1, 3))
    if count:
        metrics["mixing/cosine_mean"] = total / count
        metrics["mixing/cosine_min"] = float(statistics[:, 2].min())
        metrics["mixing/cosine_below_0.95"] = below / count
    return metrics


def data_metrics(batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """In place of verl's compute_data_metrics: its metrics of a batch, and ours.

    Safe: it looks at the batch after the update. Were it stock, metrics.jsonl would have no parity
    (tests/workflow/test_training.py).
    """
    return {**stock_metrics(batch, *args, **kwargs), **batch_metrics(batch)}


class MetricsFile:
    """metrics.jsonl in the run folder, and beside it verl's settings as its trainer holds them at the start."""

    def __init__(self, run: RunFiles, settings: dict[str, Any]):
        self.path = run.metrics
        write_json(run.verl_settings, settings)

    def log(self, data: dict[str, Any], step: int) -> None:
        """Append one step's line."""
        line = {_NAMES[name]: value for name, value in data.items() if name in _NAMES}
        line |= {name: value for name, value in data.items() if name.startswith(_OWN)}
        plain = {name: float(value) for name, value in line.items() if math.isfinite(float(value))}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **plain}, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())  # the checkpoint that is committed next counts on this line


def validation_metrics(data_sources, sample_inputs, infos: dict[str, list], seed: int = 42) -> dict[str, dict]:
    """In place of verl's process_validation_metrics, which bootstraps for seconds: the mean over problems and samples.

    Safe: it is all of verl's figures that `score_of` takes. Were it stock, a validation would take longer.
    """
    mean = sum(infos["reward"]) / len(infos["reward"])
    return {str(data_sources[0]): {"reward": {f"mean@{len(infos['reward'])}": mean}}}


def score_of(metrics: dict[str, Any]) -> float:
    """The validation score among verl's validation metrics."""
    (score,) = (value for name, value in metrics.items() if "/reward/mean@" in name)
    return float(score)
