"""A short training through verl, Ray and sglang on one card (or the CPU): does the toy's reward rise, does it replay?

bfloat16 on a card, float32 on a CPU.
"""

import statistics
import tempfile
from pathlib import Path

from gpu_kit import toy
from gpu_kit.checks.figures import ROOT, asked

RISE, WINDOW = 0.08, 10
"""Of the mean reward, from the first steps to the last; a step's 128 responses move a mean of ten by 0.013."""


def main() -> None:
    """Print and keep the figures."""
    figures = asked()
    import torch

    from ngrpo.files import write_json
    from ngrpo.study.run_log import read_metrics
    from ngrpo.training.launch import train

    files, card = ROOT / "toy", torch.cuda.is_available()
    run = toy.spec("bfloat16" if card else "float32")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        folder.mkdir()
        write_json(folder / "spec.json", run.json_value())
        train(
            run,
            model=files / "model",
            data=files / "train.parquet",
            validation=files / "validation.parquet",
            neighbors=files / "table.safetensors",
            run_dir=folder,
            out=folder / "model",
            checkpoint_every=toy.STEPS,
            devices=1,
        )
        rows = read_metrics(folder / "metrics.jsonl")
    figures.add("steps", len(rows), equal=toy.STEPS)
    rewards = [row["reward/mean"] for row in rows]
    first, last = statistics.mean(rewards[:WINDOW]), statistics.mean(rewards[-WINDOW:])
    figures.add(f"mean reward of the first {WINDOW} steps", first)
    figures.add(f"mean reward of the last {WINDOW} steps", last)
    figures.add("rise of the mean reward", last - first, at_least=RISE)
    figures.add("largest mean difference between rollout and trainer", max(row["parity/mean"] for row in rows), "nats")
    steps = [row["seconds/step"] for row in rows]
    figures.add("a step, once warm", statistics.median(steps[1:]), "s")


if __name__ == "__main__":
    main()
