"""A job that waits in a queue runs what it was submitted for, whatever happens to the configuration meanwhile."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from finished_study import FinishedStudy

HERE = Path(__file__).parent
STUB = """#!/bin/bash
# ngrpo train SPEC … --out MODEL: notes its spec
mkdir -p "${@: -1}"
cp "$2" "${@: -1}/config.json"
"""


@pytest.fixture
def study(tmp_path: Path) -> FinishedStudy:
    """A finished study in a folder with a space, whose training environment notes what it is asked."""
    study = FinishedStudy(tmp_path / "my project", touched=False)
    program = study.folder / "stub env" / "bin" / "ngrpo"
    program.parent.mkdir(parents=True)
    program.write_text(STUB)
    program.chmod(0o755)
    (study.folder / "site.yaml").write_text("environments: {train: stub env}\n")
    return study


def start(study: FinishedStudy, target: str, queue: Path) -> subprocess.Popen:
    """Snakemake with its jobs in the held queue; returns once one is there."""
    queue.mkdir()
    paths = os.pathsep.join((str(HERE / "queue"), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "snakemake", target, "--executor", "held", "--jobs", "1"]
    command += ["--seconds-between-status-checks", "0", "--configfile", "site.yaml", "--latency-wait", "1"]
    with open(queue / "log", "w") as log:
        running = subprocess.Popen(
            command,
            cwd=study.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, "HELD_QUEUE": str(queue)},
        )
    while not list(queue.glob("*.sh")) and running.poll() is None:
        time.sleep(0.1)
    assert running.poll() is None, (queue / "log").read_text()
    return running


def test_a_queued_job_survives_an_edited_and_a_broken_configuration(study: FinishedStudy, tmp_path: Path) -> None:
    spec, queue = study.study().runs["grpo-toy"], tmp_path / "queue"
    model = study.results / "toy" / "runs" / "grpo-toy" / "model"
    shutil.rmtree(model)
    running = start(study, "grpo-toy", queue)
    try:
        rows = [{"label": "one", "method": "grpo"}]
        study.edit("study.yaml", methods__grpo__training={"group": 5}, tables__main__rows=rows)
        edited = (study.config / "study.yaml").read_text()
        # a look at what the edit would mean changes nothing either
        assert "train" in study.planned("grpo-toy")
        (study.config / "study.yaml").write_text("methods: [")
        (study.config / "scales" / "toy.yaml").rename(study.config / "scales" / "other.yaml")
        (study.folder / "site.yaml").write_text("environments: {train")
        (queue / "go").touch()
        assert running.wait(timeout=300) == 0, (queue / "log").read_text() + (queue / "0.sh.log").read_text()
    finally:
        running.kill()
    assert json.loads((model / "config.json").read_text()) == spec.json_value()

    # what was edited is for the next start: the model that the queue made isn't taken for it
    (study.config / "study.yaml").write_text(edited)
    (study.config / "scales" / "other.yaml").rename(study.config / "scales" / "toy.yaml")
    assert "train" in study.planned("grpo-toy")
