"""`make test-gpu-kit`: the packed kit, all of it, unpacked over a torch without a card; its CPU half, from its README.

Runs in the environment with a current torch, which stands for a node: the kit's own packages come before that one's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train

KIT = Path(__file__).resolve().parents[2] / "build" / "gpu-kit"
CPU_HALF = {"replay", "learning", "graphs", "contract"}


def test_the_cpu_half_passes_and_nothing_is_said_of_a_card(tmp_path: Path) -> None:
    assert all(part.stat().st_size <= 60 * 2**20 for part in KIT.rglob("*") if part.is_file())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    command = [KIT / "run", "--work", tmp_path / "work", "--out", tmp_path / "report"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
    report = json.loads((tmp_path / "report" / "gpu-report.json").read_text())
    states = {step["name"]: step["state"] for step in report["steps"]}
    assert {name for name, state in states.items() if state == "passed"} == CPU_HALF, states
    assert {state for name, state in states.items() if name not in CPU_HALF} == {"not run"}
    assert report["node"]["card"] is None
    assert "no card: CPU half only" in (tmp_path / "report" / "index.html").read_text()
    assert done.returncode == 0
