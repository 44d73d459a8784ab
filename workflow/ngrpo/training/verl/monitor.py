"""Each step's metrics, under our names, one JSON object a line.

Parity is what the field calls the rollout–trainer mismatch: how far the log-probs that the rollout engine had when it
drew a token are from those that the trainer computes for it with the same weights. `ngrpo.statistics.mismatch` measures
it, and says what stops a run.

| name | meaning |
|---|---|
| reward/mean, reward/no_answer, reward/grader_error | shares of the batch's responses |
| reward/control | mean of what a control's run is rewarded for instead; reward/mean stays the share of right answers |
| reward/frac_reward_zero_std | share of groups whose responses all got one reward (TRL's name): no advantage |
| response/length, response/truncated | tokens, mean; share that reached the limit |
| response/frac_identical | share of responses that another response of their group repeats, token for token |
| policy/… | entropy, kl (to the base model), kl_to_old, clipped, loss, gradient_norm, learning_rate of the update |
| parity/max, mean, q0.99, q0.999 | absolute difference of rollout's and replayed log-probs, before the update |
| parity/before_mixing | its mean over tokens before any mixed step of their response |
| parity/input_deviation | largest distance of a mixed input from what the engine's model read, by its length |
| parity/mixed_ratio, mixed_sigmas | its mean after mixed inputs by that after plain ones; excess in standard errors |
| parity/temperature | slope of the difference on the log-prob: as if by a temperature that is off by so much |
| rollout_corr/kl, k3_kl | estimates of KL(rollout ‖ trainer) |
| rollout_corr/rollout_is_… | of π_trainer / π_rollout: mean, effective sample size, shares beyond 2 and below 1/2 |
| mixing/share | share of fed steps that were mixed |
| mixing/cosine_mean, mixing/cosine_min, mixing/cosine_below_0.95 | of ẽ and E[v*] (Appendix E) |
| validation/score | mean over validation problems and samples, on validation steps |
| seconds/… | wall time of the step and its phases |
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.metric_utils import compute_data_metrics as stock_metrics

from ngrpo.errors import UserError
from ngrpo.files import write_json
from ngrpo.method.records import Record
from ngrpo.statistics.mismatch import INPUT, measured
from ngrpo.study.layout import RunFiles
from ngrpo.training.verl.actor import DEVIATIONS, FARTHEST, KEY, STATISTICS

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
_OWN = ("parity/", "rollout_corr/", "mixing/", "reward/", "response/", "validation/")


def mismatch(batch: Any) -> dict[str, float]:
    """How far rollout and trainer disagree in a batch: `ngrpo.statistics.mismatch.measured`, and its mixed inputs."""
    written = batch.batch["response_mask"].bool().cpu().numpy()
    mixed = np.zeros_like(written)
    for row, packed in enumerate(batch.non_tensor_batch[KEY]):
        record = Record.unpack(packed)
        mixed[row, 1 : record.length] = record.mixed()
    sides = (batch.batch[name].float().cpu().numpy() for name in ("rollout_log_probs", "old_log_probs"))
    return {**measured(*sides, written, mixed), INPUT: float(batch.batch[DEVIATIONS][:, 1].max())}


def uncompared(batch: Any) -> int:
    """How many of a batch's mixed inputs weren't compared with what the engine's model read."""
    mixed = sum(int(Record.unpack(packed).mixed().sum()) for packed in batch.non_tensor_batch[KEY])
    return mixed - int(batch.batch[DEVIATIONS][:, 0].sum())


def farthest(batch: Any) -> int:
    """The seed of the response with the mixed input that is farthest from what the engine's model read."""
    return int(batch.batch[FARTHEST][batch.batch[DEVIATIONS][:, 1].argmax()])


def not_finite(values: Mapping[str, Iterable[float]]) -> str:
    """What of these quantities is no finite number, in words; empty where all are. values: each one's numbers."""
    for name, numbers in values.items():
        for number in numbers:
            if not math.isfinite(number):
                return f"{name} is {'NaN' if math.isnan(number) else number}"
    return ""


def log_probs_not_finite(batch: Any) -> str:
    """The same of a batch's log-probs, over its responses."""
    mask = batch.batch["response_mask"].bool()
    sources = {
        "rollout_log_probs": "the rollout's",
        "old_log_probs": "the trainer's",
        "ref_log_prob": "the reference's",
    }
    values_of = {
        f"{whose} log-prob of a token": batch.batch[key][mask] for key, whose in sources.items() if key in batch.batch
    }
    return not_finite({name: values[~values.isfinite()][:1].tolist() for name, values in values_of.items()})


def update_not_finite(metrics: Mapping[str, Any]) -> str:
    """The same of an update's metrics as verl's workers return them, a number or a list of them each."""
    values = {name: np.atleast_1d(value).tolist() for name, value in metrics.items() if name in _NAMES}
    return not_finite({f"{_NAMES[name]} of an update": numbers for name, numbers in values.items()})


def batch_metrics(batch: Any) -> dict[str, float]:
    """What verl doesn't measure: parity, mixing, grades."""
    metrics = mismatch(batch)
    rewarded, score = batch.batch["token_level_rewards"], batch.batch["token_level_scores"]
    if not torch.equal(rewarded, score):
        metrics["reward/control"] = float(rewarded.sum(-1).mean())
    for name in ("no_answer", "grader_error"):
        if name in batch.non_tensor_batch:
            metrics[f"reward/{name}"] = float(batch.non_tensor_batch[name].astype(float).mean())
    records = [Record.unpack(packed) for packed in batch.non_tensor_batch[KEY]]
    fed = sum(r.length - 1 for r in records)
    metrics["mixing/share"] = sum(int(record.mixed().sum()) for record in records) / max(1, fed)
    statistics = batch.batch[STATISTICS]
    count, total, below = (float(statistics[:, column].sum()) for column in (0, 1, 3))
    if count:
        metrics["mixing/cosine_mean"] = total / count
        metrics["mixing/cosine_min"] = float(statistics[:, 2].min())
        metrics["mixing/cosine_below_0.95"] = below / count
    return metrics


def group_metrics(batch: Any) -> dict[str, float]:
    """Of how much of a batch nothing can be learned: groups of one reward, and responses that repeat one another."""
    _, group = np.unique(batch.non_tensor_batch["uid"], return_inverse=True)
    reward = batch.batch["token_level_rewards"].sum(-1).cpu().numpy()
    constant = [float(np.ptp(reward[group == g]) == 0) for g in range(int(group.max()) + 1)]
    responses, mask = batch.batch["responses"].cpu().numpy(), batch.batch["response_mask"].cpu().numpy().astype(bool)
    texts = [(g, row[written].tobytes()) for g, row, written in zip(group.tolist(), responses, mask, strict=True)]
    times = Counter(texts)
    return {
        "reward/frac_reward_zero_std": sum(constant) / len(constant),
        "response/frac_identical": sum(times[text] > 1 for text in texts) / len(texts),
    }


def data_metrics(batch: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """In place of verl's compute_data_metrics: its metrics of a batch, and ours.

    Safe: it looks at the batch after the update. Were it stock, metrics.jsonl would have no parity
    (tests/workflow/test_training.py).
    """
    return {**stock_metrics(batch, *args, **kwargs), **batch_metrics(batch), **group_metrics(batch)}


class MetricsFile:
    """metrics.jsonl in the run folder, and beside it verl's settings as its trainer holds them at the start."""

    def __init__(self, run: RunFiles, settings: dict[str, Any]):
        self.path = run.metrics
        write_json(run.verl_settings, settings)

    def log(self, data: dict[str, Any], step: int) -> None:
        """Append one step's line. Raises UserError for a value that is no finite number."""
        line = {_NAMES[name]: value for name, value in data.items() if name in _NAMES}
        line |= {name: value for name, value in data.items() if name.startswith(_OWN)}
        plain = {name: float(value) for name, value in line.items()}
        if what := not_finite({name: [value] for name, value in plain.items()}):
            raise UserError(f"{what}: the step isn't logged", where=f"step {step}")
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
