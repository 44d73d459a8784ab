"""Time and hardware of every training and evaluation, as they wrote them down."""

from dataclasses import dataclass
from pathlib import Path

from ngrpo.files import read_json
from ngrpo.study.expand import Study
from ngrpo.study.layout import Results, RunFiles
from ngrpo.study.spent import Spent, evaluation_spent, run_spent

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class JobTime:
    """One job: what it ran on, and how long. file: where that is written, relative to the results."""

    name: str
    file: str
    kind: str
    spent: Spent


def job_times(study: Study, results: Path) -> list[JobTime]:
    """Every training and evaluation that has noted its time, in the study's order."""
    jobs = []
    for run in study.runs:
        folder = results / "runs" / run
        if found := run_spent(RunFiles(folder)):
            jobs.append(JobTime(f"training {run}", f"runs/{run}/metrics.jsonl", _trained_on(folder), found[1]))
    for name in study.evaluations:
        samples = results / "evaluations" / f"{name}.samples.parquet"
        if found := evaluation_spent(Results(results).evaluation(name)):
            clock = samples.with_suffix(".time.json")
            told = read_json(clock).get("hardware", {}).get("kind", UNKNOWN)
            jobs.append(JobTime(f"evaluation {name}", str(clock.relative_to(results)), told, found[1]))
    return jobs


def _trained_on(folder: Path) -> str:
    """The kinds of devices that a run's jobs had, in the order in which they came."""
    if not (folder / "hardware.json").exists():
        return UNKNOWN
    return ", then ".join(dict.fromkeys(job["kind"] for job in read_json(folder / "hardware.json")))


def totals(jobs: list[JobTime]) -> list[tuple[str, float]]:
    """(unit, device-hours) of all jobs together: GPUs and CPU devices apart."""
    sums: dict[str, float] = {}
    for job in jobs:
        unit = "GPU-hours" if job.spent.on_gpus else "CPU device-hours"
        sums[unit] = sums.get(unit, 0.0) + job.spent.device_hours
    return list(sums.items())
