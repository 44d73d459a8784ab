"""The toy DAG through Snakemake, with verl and sglang, at a size of a few steps: every stage, reruns, errors.

The configuration is the project's own, made smaller: what is tested here is the path, not the learning.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.toy

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "models": {"toy": {"source": {"kind": "toy", "steps": 60}, "dtype": "float32"}},
    "training": {"steps": 4, "batch_prompts": 8, "group": 4, "mini_batch_prompts": 4, "validate_every": 2},
    "evaluation": {"samples": 4, "pass_at": [2, 4]},
    "checkpoint_every": 2,
    "tables": ["main"],
    "table_seeds": {"main": 1},
    "demo": None,
}


class Toy:
    """A folder with a small toy study and the command that runs it."""

    def __init__(self, folder: Path):
        self.folder, self.config, self.results = folder, folder / "config", folder / "results"
        (self.config / "scales").mkdir(parents=True)
        (self.config / "study.yaml").write_text((ROOT / "config" / "study.yaml").read_text())
        scale = yaml.safe_load((ROOT / "config" / "scales" / "toy.yaml").read_text())
        for key, value in SMALL.items():
            scale[key] = {**scale[key], **value} if isinstance(value, dict) else value
        scale["datasets"]["toy-train"]["source"]["count"] = 64
        for name in ("toy-validation", "toy-held-out"):
            scale["datasets"][name]["source"]["count"] = 8
        other = {"kind": "toy", "count": 4, "held_out": True, "seed": 14}
        scale["datasets"]["toy-other"] = {"source": other, "instruction": ""}
        scale["benchmarks"] = ["toy-held-out", "toy-other"]
        self.scale = scale
        self.write()

    def write(self) -> None:
        """Write the scale's file."""
        (self.config / "scales" / "toy.yaml").write_text(yaml.safe_dump(self.scale, sort_keys=False))

    def snakemake(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess:
        """Run the workflow on this study; stdout and stderr come back together."""
        settings = {"config": self.config, "results": self.results, **settings}
        command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "2", "--nolock", *arguments]
        command += ["--config", *(f"{k}={v}" for k, v in settings.items())]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=ROOT, check=False, **streams)

    def planned(self) -> dict[str, int]:
        """How many jobs of each rule a dry run would run."""
        done = self.snakemake("-n")
        assert done.returncode == 0, done.stdout
        words = [line.split() for line in done.stdout.splitlines()]
        counts = {w[0]: int(w[1]) for w in words if len(w) == 2 and w[1].isdigit() and not w[0].endswith(":")}
        counts.pop("total", None)
        return counts


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The small study, run to its report."""
    toy = Toy(tmp_path_factory.mktemp("toy"))
    done = toy.snakemake()
    assert done.returncode == 0, done.stdout[-8000:]
    return toy


def test_every_stage_left_its_files(toy: Toy) -> None:
    root = toy.results / "toy"
    for name in (
        "data/toy-train.toy.card.json",
        "models/toy/model.safetensors",
        "neighbors/toy.cosine.k3.safetensors",
        "runs/ngrpo-toy/model/model.safetensors",
        "runs/grpo-toy/metrics.jsonl",
        "runs/ngrpo-toy/hardware.json",
        "evaluations/ngrpo-toy/standard/toy-held-out.grades.parquet",
        "analysis/main.parquet",
        "diagnostics/ngrpo-toy.json",
        "report/index.html",
    ):
        assert (root / name).exists(), name
    table = pd.read_parquet(root / "analysis" / "main.parquet")
    assert set(table["label"]) == {"Base", "GRPO", "N-GRPO"}


def test_every_training_step_is_logged_once_with_its_parity(toy: Toy) -> None:
    for run in ("grpo-toy", "ngrpo-toy"):
        lines = (toy.results / "toy" / "runs" / run / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [r["step"] for r in rows] == [1, 2, 3, 4]
        assert max(r["parity/max"] for r in rows) <= 1e-4
        assert (sum(r["mixing/share"] for r in rows) > 0) == (run == "ngrpo-toy")


def test_a_second_run_does_nothing(toy: Toy) -> None:
    done = toy.snakemake()
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_one_changed_value_reruns_what_depends_on_it(toy: Toy) -> None:
    study = toy.config / "study.yaml"
    before = study.read_text()
    study.write_text(before.replace("rho: 0.1", "rho: 0.2"))
    try:
        expected = {"train": 1, "diagnostics": 1, "sample-toy-held-out+toy-other": 1, "grade": 2}
        expected |= {"analyze": 1, "notebook": 1, "report": 1, "all": 1}
        assert toy.planned() == expected
    finally:
        study.write_text(before)
        assert "Nothing to be done" in toy.snakemake().stdout


def test_snakemakes_own_report_holds_the_page_and_its_figures(toy: Toy) -> None:
    out = toy.folder / "report.zip"
    done = toy.snakemake("--report", str(out))
    assert done.returncode == 0, done.stdout[-4000:]
    names = zipfile.ZipFile(out).namelist()
    assert any(name.endswith("index.html") for name in names)
    assert sum(name.endswith(".svg") for name in names) > 5


def test_a_lost_evaluation_is_drawn_again_and_the_others_of_its_batch_stay(toy: Toy) -> None:
    samples = toy.results / "toy" / "evaluations" / "ngrpo-toy" / "standard"
    other, lost = samples / "toy-held-out.samples.parquet", samples / "toy-other.samples.parquet"
    inode, before = other.stat().st_ino, lost.read_bytes()
    lost.unlink()
    assert toy.planned() == {}, "samples whose grades are there may be deleted"
    (samples / "toy-other.grades.parquet").unlink()
    assert toy.planned()["sample-toy-held-out+toy-other"] == 1
    done = toy.snakemake()
    assert done.returncode == 0, done.stdout[-8000:]
    assert "already there: toy-held-out" in done.stdout
    assert other.stat().st_ino == inode
    assert lost.read_bytes() == before
    assert "Nothing to be done" in toy.snakemake().stdout


def test_a_title_reruns_no_training(toy: Toy) -> None:
    toy.scale["models"]["toy"]["title"] = "another name"
    toy.write()
    assert not toy.planned().keys() & {"model", "train", "diagnostics", "sample-toy-held-out+toy-other", "grade"}


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        ((), {"scal": "toy"}, ["unknown key 'scal'", "did you mean 'scale'"]),
        ((), {"scale": "toi"}, ["no scale 'toi'", "did you mean 'toy'"]),
        ((), {"scale": "toy", "data_folder": "nowhere"}, ["no such data folder", "nowhere"]),
        ((), {"scale": "smoke", "config": "config"}, ["none is named", "data_folder=PATH"]),
        (
            (),
            {"scale": "smoke", "config": "config", "data_folder": "docs"},
            ["isn't in your data folder"],
        ),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_1(toy: Toy, arguments, settings, words) -> None:
    done = toy.snakemake(*arguments, **settings)
    assert done.returncode == 1
    for word in words:
        assert word in done.stdout
    assert "Traceback" not in done.stdout
