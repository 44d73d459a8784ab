"""What trainings and evaluations have taken, as they wrote it down themselves."""

from dataclasses import dataclass

from ngrpo.files import read_json
from ngrpo.study.cards import SamplesCard, SamplesTime, TrainerSettings, VerlSettings
from ngrpo.study.layout import EvaluationFiles, RunFiles
from ngrpo.study.run_log import read_metrics


@dataclass(frozen=True)
class Spent:
    """What one job has taken so far."""

    hours: float
    devices: int
    on_gpus: bool

    @property
    def device_hours(self) -> float:
        """Hours of all its devices together."""
        return self.hours * self.devices


def run_spent(run: RunFiles) -> tuple[list[float], Spent] | None:
    """A run's logged seconds a step, and what they add up to; None where nothing is logged.

    Devices are those in verl's settings, one where a run didn't write them. Start-up and steps that a kill made undone
    are not in it.
    """
    logged = [row.get("seconds/step") for row in read_metrics(run.metrics)]
    seconds = [float(value) for value in logged if value is not None]
    if not seconds:
        return None
    devices, gpu = 1, False
    if run.verl_settings.exists():
        trainer: TrainerSettings = read_json(run.verl_settings, VerlSettings).get("trainer", {})
        devices = trainer.get("n_gpus_per_node", 1) * trainer.get("nnodes", 1)
        gpu = trainer.get("device") == "cuda"
    return seconds, Spent(sum(seconds) / 3600, devices, gpu)


def evaluation_spent(evaluation: EvaluationFiles) -> tuple[float, Spent] | None:
    """An evaluation's tokens a response, and what sampling took; None where that wasn't written down."""
    if not evaluation.samples_card.exists() or not evaluation.samples_time.exists():
        return None
    card: SamplesCard = read_json(evaluation.samples_card, SamplesCard)
    took: SamplesTime = read_json(evaluation.samples_time, SamplesTime)
    if "tokens" not in card:
        return None
    return card["tokens"] / max(1, card["samples"]), Spent(took["seconds"] / 3600, took["devices"], took["gpu"])
