"""Starting a training, where SLURM is out of reach too; and ending it by signals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError

pytestmark = pytest.mark.train


def imported_with(module: str) -> bool:
    """Whether importing this module of the package brings Ray along."""
    pytest.importorskip("ray")
    code = f"import sys, {module}; print('ray' in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_ray_is_not_imported_before_its_environment_is_set() -> None:
    """Ray reads its settings (the token that closes it to others) when it is imported; `train` sets them first."""
    assert not imported_with("ngrpo.training.launch")


def test_an_early_import_would_be_seen() -> None:
    assert imported_with("ngrpo.training.verl.trainer")


WAITS = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from ngrpo.training.launch import _orderly_end
stop = Path(sys.argv[1])
with _orderly_end(stop, SimpleNamespace(lost=False), "[train]"):
    print("training", flush=True)
    deadline = time.monotonic() + 60
    while not stop.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    print("saved", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end_saves_first(number: int, tmp_path: Path) -> None:
    """As the rule starts it: a shell, its pipe and the trainer all get the signal, as in a terminal or on a cluster."""
    rule = (Path(__file__).resolve().parents[2] / "rules" / "train.smk").read_text()
    trap = re.search(r"trap '' [A-Z ]+; ", rule)[0]
    log, stop, program = tmp_path / "log", tmp_path / "stop", tmp_path / "waits.py"
    program.write_text(WAITS)
    shell = f"set -euo pipefail; {trap}{sys.executable} {program} {stop} 2>&1 | tee {log}"
    with subprocess.Popen(["bash", "-c", shell], stdout=subprocess.DEVNULL, start_new_session=True) as job:
        deadline = time.monotonic() + 60
        while not (log.exists() and "training" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(job.pid, number)
        assert job.wait(60) == 0
    said = log.read_text().splitlines()
    assert said[0] == "training"
    assert "asked to end: finishing the step" in said[1]
    assert said[2:] == ["saved"]


def test_a_container_without_slurms_commands_trains_on_one_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ngrpo.training.launch import _time_to_save
    from ngrpo.training.nodes import other_nodes

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    assert _time_to_save(30) is None
    assert "the end of this job's time isn't known (there is no `squeue` on this machine)" in capsys.readouterr().out
    with pytest.raises(UserError, match="there is no `scontrol` here") as caught:
        other_nodes(2)
    assert "in a container: bind SLURM's commands" in str(caught.value)


FINISHED = """
import json, shutil, sys
from pathlib import Path
import tiny_runs
from ngrpo.data.datasets import make_dataset
from ngrpo.stages.base_models import make_model
from ngrpo.study.layout import RunFiles
from ngrpo.study.mixing import NoMixer
from ngrpo.study.sources import Model, ToyModel
from ngrpo.study.specs import ModelSpec
from ngrpo.training.checkpoints import Checkpoints
from ngrpo.training.launch import train

folder, spec = Path(sys.argv[1]), tiny_runs.tiny_spec(NoMixer(), 2)
source = ToyModel(kind="toy", steps=1)
make_model(ModelSpec(id="tiny", model=Model(source=source, dtype="float32")), folder / "model")
for name, data in (("train", tiny_runs.TRAIN), ("validation", tiny_runs.VALIDATION)):
    make_dataset(data, folder / f"{name}.parquet")
run = RunFiles(folder / "run")
checkpoints = Checkpoints(run, spec.digest)
checkpoints.prepare()
(checkpoints.folder / "global_step_2").mkdir()
(checkpoints.folder / "global_step_2" / "optimizer.pt").write_bytes(bytes(1000))
shutil.copytree(folder / "model", checkpoints.best_model(2), ignore=shutil.ignore_patterns("ngrpo.json"))
checkpoints.declare_best(0.5, 2)
checkpoints.commit(2)
run.metrics.write_text("".join(json.dumps({"step": step}) + "\\n" for step in (1, 2)))

def finish(**options):
    train(spec, model=folder / "model", data=folder / "train.parquet", validation=folder / "validation.parquet",
          neighbors=None, run_dir=run.folder, out=run.model, **options)
    print(sorted(path.name for path in checkpoints.folder.iterdir() if path.is_dir()))

from ngrpo.errors import UserError
from safetensors.torch import load_file, save_file

weights = checkpoints.best_model(2) / "model.safetensors"
whole = weights.read_bytes()
save_file({k: v * float("nan") for k, v in load_file(weights).items()}, weights, {"format": "pt"})
try:
    finish()
except UserError as e:
    print("aren't finite" in str(e), run.model.exists(), (checkpoints.folder / "global_step_2").exists())
weights.write_bytes(whole)
finish(keep_checkpoints=True)
finish()
shutil.rmtree(run.model)
finish()
print(weights.samefile(run.model / "model.safetensors"))
"""


def test_a_done_run_is_exported_checked_and_only_then_lets_its_checkpoints_go(tmp_path: Path) -> None:
    """All of `train` but its steps, which are done: no Ray, no engine."""
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FINISHED, str(tmp_path)], text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tests.parent / 'workflow'}:{tests / 'workflow'}", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if not line.startswith(("[train", "[model", "[dataset"))]
    both, one = "['best_2', 'global_step_2']", "['best_2']"
    assert said == ["True False True", both, one, one, "True"], done.stdout + done.stderr[-3000:]
