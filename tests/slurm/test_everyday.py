"""The happy path on a real SLURM, and what is said to a user whose settings don't fit the cluster."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from clone import STEPS, Clone
from mini import MiniSlurm

from ngrpo.errors import UserError
from ngrpo.slurm.partitions import partitions
from ngrpo.slurm.preflight import check_cluster
from ngrpo.study.cluster import Cluster

pytestmark = pytest.mark.slurm

FITS = {
    "account": "none",
    "cpu": {"partition": "cpu", "cpus": 2, "memory_gb": 2},
    "gpu": {"partition": "gpu", "type": "h20", "per_node": 2, "cpus": 1, "memory_gb": 4},
    "walltime": 60,
}


def _cluster(**changes: object) -> Cluster:
    value = {k: dict(v) if isinstance(v, dict) else v for k, v in FITS.items()}
    for key, change in changes.items():
        value[key] = {**value[key], **change} if isinstance(change, dict) else change
    return Cluster.model_validate(value)


def test_a_site_that_fits_passes(slurm: MiniSlurm) -> None:
    assert partitions()["gpu"].gpus == {"h20": slurm.gpus}
    assert partitions()["cpu"].gpus == {}
    said = check_cluster(_cluster())
    assert "training: 2 GPUs of partition 'gpu' (2 × h20 a node, 2 nodes)" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"account": None}, ["no account is named", "cluster.account", "write the word none"]),
        ({"gpu": {"partition": None}}, ["no partition is named for gpu jobs", "cpu (no GPUs); gpu (2 × h20 a node)"]),
        ({"cpu": {"partition": "cpus"}}, ["no partition 'cpus'", "did you mean 'cpu'"]),
        ({"gpu": {"type": "h200"}}, ["no GPUs of type 'h200'", "did you mean 'h20'", "cluster.gpu.type"]),
        ({"gpu": {"type": "a100"}}, ["no GPUs of type 'a100'", "it has: 2 × h20 a node"]),
        ({"gpu": {"partition": "cpu", "type": None}}, ["asks for 2 GPUs a node", "name a partition with GPUs"]),
        ({"gpu": {"per_node": 8}}, ["asks for 8 GPUs a node", "more than 2", "cluster.gpu.per_node"]),
        ({"gpu": {"memory_gb": 500}}, ["1000 GB of memory", "more than 32", "cluster.gpu.memory_gb"]),
        ({"gpu": {"cpus": 8}}, ["16 CPUs", "more than 8"]),
        ({"walltime": 2880}, ["2880 minutes", "at most 1440", "cluster.walltime"]),
    ],
)
def test_a_site_that_does_not_fit_is_named_before_anything_is_submitted(
    slurm: MiniSlurm, changes: dict, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check_cluster(_cluster(**changes))
    for word in words:
        assert word in str(caught.value)


def test_snakemake_submits_nothing_where_the_site_does_not_fit(slurm: MiniSlurm, tmp_path: Path) -> None:
    fresh = Clone(tmp_path / "ngrpo", slurm)
    for changes, word in (
        ({"account": None}, "no account is named"),
        ({"gpu": {"type": "a100"}}, "no GPUs of type 'a100'"),
        ({"walltime": 4}, "no job would ever save its work"),
    ):
        fresh.site(**changes)
        try:
            assert fresh.snakemake("all") == 1
        finally:
            fresh.site()
        assert word in fresh.output
        assert "Traceback" not in fresh.output
        assert fresh.slurm.queue() == []
        assert not (fresh.folder / "results" / "toy" / "models" / "toy").exists()


def test_the_toy_study_runs_on_slurm_to_its_report(clone: Clone) -> None:
    root = clone.folder / "results" / "toy"
    assert (root / "report" / "index.html").exists()
    assert set(pd.read_parquet(root / "analysis" / "main.parquet")["label"]) == {"Base", "GRPO", "N-GRPO"}
    for run in ("grpo-toy", "ngrpo-toy"):
        rows = [json.loads(line) for line in (root / "runs" / run / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert clone.slurm.queue() == []
    assert clone.snakemake("all") == 0
    assert "Nothing to be done" in clone.output


def test_no_job_asks_for_more_than_it_uses(slurm: MiniSlurm, clone: Clone) -> None:
    """What SLURM was really asked for, as it remembers it."""
    asked: dict[str, set[str]] = {}
    done = subprocess.run(("squeue", "-h", "-t", "all", "-o", "%k|%b"), capture_output=True, text=True, check=True)
    for comment, gres in (line.split("|") for line in done.stdout.splitlines()):
        asked.setdefault(comment.split("_wildcards_")[0], set()).add(gres)
    assert asked["rule_train"] == {"gres:gpu:h20:1"}
    assert asked["rule_sample-toy-held-out"] == {"gres:gpu:h20:1"}
    assert asked["rule_grade"] == asked["rule_neighbors"] == {"N/A"}
    here = {"dataset", "model", "analyze", "notebook", "report"}  # they run where Snakemake runs
    assert not asked.keys() & {f"rule_{name}" for name in here}


def test_two_snakemakes_on_one_folder(clone: Clone, tmp_path: Path) -> None:
    lock = clone.folder / ".snakemake" / "locks"
    clone.forget_run()
    first = clone.start("ngrpo-toy")
    said = clone.folder / "first.out"
    (clone.folder / "snakemake.out").rename(said)
    try:
        clone.wait_for("lock", lambda: lock.is_dir() and any(lock.iterdir()))
        assert clone.snakemake("ngrpo-toy") == 1
        assert "Directory cannot be locked" in clone.output
    finally:
        assert first.wait(timeout=400) == 0, said.read_text()[-4000:]
    assert [row["step"] for row in clone.metrics()] == list(range(1, STEPS + 1))
