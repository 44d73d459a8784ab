"""How long a run is, and how far it came: metrics.jsonl as every reader takes it, one JSON object a step.

The trainer appends a line a step (`ngrpo.training.verl.monitor` writes them and names each value); a kill may cut the
last line off. A step is done when its line is whole.
"""

import json
from pathlib import Path
from typing import Any

from ngrpo.study.specs import Training

LOGGED = {
    "step": "step",
    "reward": "reward/mean",
    "validation": "validation/score",
    "response_length": "response/length",
    "truncated": "response/truncated",
    "entropy": "policy/entropy",
    "kl": "policy/kl",
    "parity_max": "parity/max",
    "parity_mean": "parity/mean",
    "mixing_share": "mixing/share",
    "mixing_cosine": "mixing/cosine_mean",
    "mixing_cosine_min": "mixing/cosine_min",
    "mixing_cosine_low": "mixing/cosine_below_0.95",
    "seconds": "seconds/step",
    "learning_rate": "policy/learning_rate",
    "rollout_seconds": "seconds/rollout",
}
"""Column of a run's log as analysis names it: the key in metrics.jsonl."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps logged so far, in order; none where there is no file. Stops at the first line that isn't whole."""
    if not path.exists():
        return []
    rows = []
    text = path.read_text(encoding="utf-8")
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def logged_steps(path: Path) -> int:
    """How many steps of a run are done."""
    return len(read_metrics(path))


def planned_steps(training: Training, problems: int) -> int:
    """Optimization steps of a run: as given, or whole batches of so many epochs over so many training problems."""
    return training.steps or training.epochs * (problems // training.batch_prompts)
