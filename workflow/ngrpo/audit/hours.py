"""Time and hardware of every training and evaluation, as they wrote them down."""

from dataclasses import dataclass
from pathlib import Path

from ngrpo.files import read_json
from ngrpo.study.cards import JobHardware, SamplesTime
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results
from ngrpo.study.spent import Spent, evaluation_spent, run_spent

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class JobTime:
    """One job: what it ran on, and how long. file: where that is written, relative to the results."""

    name: str
    file: str
    kind: str
    spent: Spent


def job_times(study: Study, results: Results) -> list[JobTime]:
    """Every training and evaluation that has noted its time, in the study's order."""
    jobs = []
    for run in study.runs:
        files = results.run(run)
        if training := run_spent(files):
            kinds = _trained_on(files.hardware)
            jobs.append(JobTime(f"training {run}", results.relative(files.metrics), kinds, training[1]))
    for name in study.evaluations:
        evaluation = results.evaluation(name)
        if sampling := evaluation_spent(evaluation):
            kind = read_json(evaluation.samples_time, SamplesTime).get("hardware", {}).get("kind", UNKNOWN)
            file = results.relative(evaluation.samples_time)
            jobs.append(JobTime(f"evaluation {name}", file, kind, sampling[1]))
    return jobs


def _trained_on(hardware: Path) -> str:
    """The kinds of devices that a run's jobs had, in the order in which they came."""
    if not hardware.exists():
        return UNKNOWN
    return ", then ".join(dict.fromkeys(job["kind"] for job in read_json(hardware, list[JobHardware])))


def totals(jobs: list[JobTime]) -> list[tuple[str, float]]:
    """(unit, device-hours) of all jobs together: GPUs and CPU devices apart."""
    sums: dict[str, float] = {}
    for job in jobs:
        unit = "GPU-hours" if job.spent.on_gpus else "CPU device-hours"
        sums[unit] = sums.get(unit, 0.0) + job.spent.device_hours
    return list(sums.items())
