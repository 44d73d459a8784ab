"""How long a run is, and how far it came: metrics.jsonl as every reader takes it, one JSON object a step.

The trainer appends a line a step (`ngrpo.training.verl.monitor` writes them and names each value); a kill may cut the
last line off. A step is done when its line is whole.
"""

from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.foreign import json_lines, quoted_value, read_text
from ngrpo.study.specs import Training
from ngrpo.terminal import quoted

MOST_STEPS, LARGEST = 10**9, 1e300
"""A step's number, and a metric, beyond which no run gets."""

LOGGED = {
    "step": "step",
    "reward": "reward/mean",
    "zero_std": "reward/frac_reward_zero_std",
    "identical": "response/frac_identical",
    "gradient": "policy/gradient_norm",
    "validation": "validation/score",
    "response_length": "response/length",
    "truncated": "response/truncated",
    "entropy": "policy/entropy",
    "kl": "policy/kl",
    "parity_max": "parity/max",
    "parity_mean": "parity/mean",
    "k3_kl": "rollout_corr/k3_kl",
    "mixing_share": "mixing/share",
    "mixing_cosine": "mixing/cosine_mean",
    "mixing_cosine_min": "mixing/cosine_min",
    "mixing_cosine_low": "mixing/cosine_below_0.95",
    "seconds": "seconds/step",
    "learning_rate": "policy/learning_rate",
    "rollout_seconds": "seconds/rollout",
}
"""Column of a run's log as analysis names it: the key in metrics.jsonl."""
PHASES = {
    "rollout": "seconds/rollout",
    "reward": "seconds/reward",
    "log-probs": "seconds/log_prob",
    "reference": "seconds/reference",
    "update": "seconds/update",
    "validation": "seconds/validation",
    "checkpoint": "seconds/checkpoint",
}
"""A step's phases, in their order: the key in metrics.jsonl."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps logged so far, in order; none where there is no file. A last line without its end isn't read.

    Raises UserError, naming the line, for one that is no object of a step and numbers.
    """
    if not path.exists():
        return []
    text = read_text(path)
    return [_step(row, where) for where, row in json_lines(text[: text.rfind("\n") + 1], path)]


def _step(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"not a step's metrics: {quoted_value(row)}", where=where)
    if type(row.get("step")) is not int or not 0 <= row["step"] < MOST_STEPS:
        raise UserError(f"no step's number: {quoted_value(row.get('step'))}", where=f"{where}, key 'step'")
    for key, value in row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > LARGEST
        if value is not None and not number:
            raise UserError(f"not a number: {quoted_value(value)}", where=f"{where}, key '{quoted(key)}'")
    return row


def logged_steps(path: Path) -> int:
    """How many steps of a run are done."""
    return len(read_metrics(path))


def planned_steps(training: Training, problems: int) -> int:
    """Optimization steps of a run: as given, or whole batches of so many epochs over so many training problems."""
    return training.steps or training.epochs * (problems // training.batch_prompts)
