"""Time and hardware on the page: what jobs wrote down, and where it says that they didn't."""

import json
from pathlib import Path

import pytest
from synthetic_study import make_study
from unwritten import page_html

from ngrpo.audit.hours import job_times, totals
from ngrpo.study.layout import Results


def test_each_job_stands_with_its_devices_hours_and_file(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    jobs = {job.name: job for job in job_times(study, root)}
    assert list(jobs) == [f"training {run}" for run in study.runs]  # no evaluation has noted its time
    run = next(iter(study.runs))
    files = root.run(run)
    seconds = sum(json.loads(line)["seconds/step"] for line in files.metrics.read_text().splitlines())
    job = jobs[f"training {run}"]
    assert job.spent.hours == pytest.approx(seconds / 3600)
    assert job.kind == "a made-up processor"
    evaluation = next(iter(study.evaluations))
    written = root.evaluation(evaluation)
    card = json.loads(written.samples_card.read_text())
    written.samples_card.write_text(json.dumps({**card, "tokens": 9}))
    clock = {"seconds": 1800.0, "devices": 1, "gpu": True, "hardware": {"kind": "a made-up GPU"}}
    written.samples_time.write_text(json.dumps(clock))
    files.hardware.write_text(
        json.dumps([{"after_step": i, "kind": kind} for i, kind in enumerate(("old", "new", "new"))])
    )
    jobs = {job.name: job for job in job_times(study, root)}
    assert jobs[f"training {run}"].kind == "old, then new"
    assert jobs[f"evaluation {evaluation}"].kind == "a made-up GPU"
    sums = dict(totals(list(jobs.values())))
    assert sums["GPU-hours"] == 0.5
    assert sums["CPU device-hours"] == pytest.approx(len(study.runs) * seconds / 3600, rel=0.01)
    html = page_html(study, root)
    assert "1 × a made-up GPU" in html
    assert f'href="../{root.relative(written.samples_time)}">evaluation {evaluation}</a>' in html
    assert "Together: " in html


def test_a_run_of_older_code_is_said_to_have_recorded_nothing(tmp_path: Path) -> None:
    study, root = make_study(tmp_path), Results(tmp_path / "toy")
    assert "not recorded" not in page_html(study, root)
    root.run(next(iter(study.runs))).hardware.unlink()
    assert "1 × not recorded" in page_html(study, root)
