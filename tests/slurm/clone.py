"""A clone of the project with a small toy study and a site file for the mini-SLURM: what a new user would have."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import yaml
from mini import GPU_TYPE, MiniSlurm

ROOT = Path(__file__).resolve().parents[2]
POLLING = Path(__file__).with_name("polling.py")
PARTS = ("Snakefile", "rules", "workflow", "config", "slurm", "notebooks", "envs", "resources")
STEPS, EVERY = 16, 4
RUN = "ngrpo-toy"
SMALL = {
    "models": {"toy": {"source": {"kind": "toy", "steps": 400}, "dtype": "float32"}},
    "training": {"steps": STEPS, "batch_prompts": 8, "group": 4, "mini_batch_prompts": 4, "validate_every": EVERY},
    "evaluation": {"samples": 4, "pass_at": [2, 4]},
    "checkpoint_every": EVERY,
    "tables": ["main"],
    "table_seeds": {"main": 1},
    "demo": None,
}
COUNTS = {"toy-train": 64, "toy-validation": 8, "toy-held-out": 8}
QUICK = (
    "--slurm-init-seconds-before-status-checks=2",
    "--seconds-between-status-checks=2",
    "--latency-wait=10",
    "--jobs=2",
)


def without_times(rows: list[dict]) -> list[dict]:
    """Metrics without wall times."""
    return [{name: value for name, value in row.items() if not name.startswith("seconds/")} for row in rows]


class Clone:
    """The folder, its settings, and `snakemake --profile slurm` in it."""

    def __init__(self, folder: Path, slurm: MiniSlurm):
        self.folder, self.slurm = folder, slurm
        self.lost_node: str | None = None
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / part, folder / part)
        for name in (".venv", ".venv-train"):
            (folder / name).symlink_to((ROOT / name).resolve())
        path = folder / "config" / "scales" / "toy.yaml"
        scale = yaml.safe_load(path.read_text())
        for key, value in SMALL.items():
            scale[key] = {**scale[key], **value} if isinstance(value, dict) else value
        for name, count in COUNTS.items():
            scale["datasets"][name]["source"]["count"] = count
        path.write_text(yaml.safe_dump(scale, sort_keys=False))
        self.site()

    @property
    def run(self) -> Path:
        """The run folder that faults are made on."""
        return self.folder / "results" / "toy" / "runs" / RUN

    def site(self, **changes: object) -> None:
        """Write slurm/site.yaml as a user of the mini-SLURM would, with these keys of `cluster` changed."""
        path = self.folder / "slurm" / "site.yaml"
        site = yaml.safe_load((ROOT / "slurm" / "site.yaml").read_text())
        cluster = {
            "account": "none",
            "cpu": {"partition": "cpu", "cpus": 2, "memory_gb": 2},
            "gpu": {"partition": "gpu", "type": GPU_TYPE, "per_node": 1, "cpus": 1, "memory_gb": 4},
            "walltime": 15,
            "checkpoint_minutes": 5,
        }
        for key, value in changes.items():
            cluster[key] = {**cluster[key], **value} if isinstance(cluster.get(key), dict) else value
        path.write_text(yaml.safe_dump({**site, "scale": "toy", "cluster": cluster}, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `snakemake --profile slurm …`; its output goes to snakemake.out."""
        command = [".venv/bin/python", str(POLLING), "--profile", "slurm", *QUICK, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "workflow")}
        with open(self.folder / "snakemake.out", "wb") as out:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def output(self) -> str:
        """What the last Snakemake said."""
        return (self.folder / "snakemake.out").read_text(errors="replace")

    def snakemake(self, *arguments: str, seconds: float = 1500) -> int:
        """Run it to its end; returns its exit code."""
        process = self.start(*arguments)
        try:
            return process.wait(timeout=seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def clear(self, process: subprocess.Popen) -> None:
        """End a Snakemake and every job at once, and unlock the folder."""
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.slurm.clear()
        shutil.rmtree(self.folder / ".snakemake" / "locks", ignore_errors=True)

    def forget_run(self) -> None:
        """Remove the run's folder, as if it had never been trained."""
        shutil.rmtree(self.run, ignore_errors=True)

    def metrics(self) -> list[dict]:
        """The run's metrics, whole lines only."""
        path = self.run / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def lease(self) -> dict | None:
        """Who trains now."""
        try:
            return json.loads((self.run / "lease.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def committed(self) -> int:
        """The last checkpoint's step."""
        try:
            return json.loads((self.run / "checkpoints" / "checkpoint.json").read_text())["step"]
        except (FileNotFoundError, json.JSONDecodeError):
            return 0

    def weights(self) -> bytes:
        """The finished run's weights."""
        return (self.run / "model" / "model.safetensors").read_bytes()

    def wait_for(self, what: str, ready, process: subprocess.Popen | None = None, seconds: float = 300) -> None:
        """Wait for a condition; with a process, its end ends the wait with what it said."""
        deadline = time.monotonic() + seconds
        while not ready():
            if process is not None and process.poll() is not None:
                raise AssertionError(f"Snakemake ended before {what}: {self.output[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {seconds} s: {self.output[-4000:]}")
            time.sleep(0.05)


class Watch:
    """Notes, from beside, the steps and jobs of a run: a context manager around its training."""

    def __init__(self, clone: Clone):
        self.clone = clone
        self.jobs: list[str] = []
        self.lost: list[int] = []
        """For each time that the metrics got shorter: by how many steps."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        last = 0
        while not self._stop.wait(0.03):
            lease, rows = self.clone.lease(), self.clone.metrics()
            if lease and lease["job"] not in self.jobs:
                self.jobs.append(lease["job"])
            now = len(rows)
            if now < last:
                self.lost.append(last - now)
            last = now

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
