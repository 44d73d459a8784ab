"""`snakemake --profile slurm`: Snakemake and its SLURM executor, before a SLURM that only answers."""

import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from site_of_scripts import ROOT, Site
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from ngrpo.slurm.executor import sbatch_command

SITE = {
    "account": "lab",
    "extra": "--qos=long",
    "cpu": {"partition": "short", "cpus": 6},
    "gpu": {"partition": "big", "type": "a100-sxm4-80gb", "per_node": 4, "cpus": 3},
    "nodes": {"ngrpo-toy": 2},
}


@contextmanager
def jobs_of(targets: set[str], monkeypatch: pytest.MonkeyPatch, **config: Any) -> Iterator[list[Any]]:
    """Snakemake's own jobs for these targets, with the profile's Snakefile."""
    monkeypatch.chdir(ROOT)
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL}, skip_plugin_handlers=True)) as api:
        asked = api.workflow(
            resource_settings=ResourceSettings(cores=10**5),
            config_settings=ConfigSettings(config=config),
            snakefile=Path("slurm/Snakefile"),
        )
        asked.dag(DAGSettings(targets=frozenset(targets), force_incomplete=True))
        workflow = asked._workflow
        workflow._executor_plugin = ExecutorPluginRegistry().get_plugin("slurm")
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True, nolock=True)
        workflow.async_run(workflow.dag.init())
        yield list(workflow.dag.jobs)


def test_every_rule_asks_for_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with jobs_of({"all", "crate", "notebooks", "fetch"}, monkeypatch,
                 scale="toy", tables="main", results=str(tmp_path), cluster=SITE) as jobs:  # fmt: skip
        here = {job.rule.name for job in jobs if job.is_local}
        there = [job for job in jobs if not job.is_local]
        commands = {f"{job.rule.name} {job.wildcards}": (job, shlex.split(_command(job))) for job in there}
    assert {"dataset", "model", "analyze", "notebook", "report", "crate"} <= here
    assert {job.rule.name for job in there} == {
        "training_data", "neighbors", "train", "sample-toy-held-out", "grade", "diagnostics"
    }  # fmt: skip
    for name, (job, words) in commands.items():
        on_gpu = job.rule.name in ("train", "sample-toy-held-out")
        assert words[words.index("-A") + 1] == "lab", name
        assert words[words.index("-p") + 1] == ("big" if on_gpu else "short"), name
        assert f"--cpus-per-task={job.threads}" in words, name
        assert job.threads > 1, name
        assert "--qos=long" in words, name
        gpus = {"train": 4, "sample-toy-held-out": 1}.get(job.rule.name)
        assert [w for w in words if "gpu" in w] == ([f"--gpus-per-node=a100-sxm4-80gb:{gpus}"] if gpus else []), name
    two = commands["train ngrpo-toy"][1]
    assert {"--nodes=2", "--ntasks=2"} <= set(two)


def _command(job: Any) -> str:
    return sbatch_command(dict(job.resources.items()), job.threads)


def test_a_rule_without_its_needs_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with jobs_of({"main"}, monkeypatch, scale="toy", results=str(tmp_path), cluster=SITE) as jobs:
        job = next(job for job in jobs if job.rule.name == "analyze")
        words = shlex.split(_command(job))
    assert "-A" not in words
    assert "-p" not in words


def test_jobs_whose_end_is_not_like_others(tmp_path: Path) -> None:
    """One Snakemake: a user's mistake is submitted once, a crash again, and a job that squeue forgets has ended.

    The site's settings are in a --configfile, and what they leave out is slurm/site.yaml's.
    """
    site = Site(tmp_path)
    tables = [str(site.results / "toy" / "neighbors" / f"toy.{m}.k3.safetensors") for m in ("cosine", "l1", "l2")]
    done = site.snakemake(*tables, "--retries=2")
    assert done.returncode == 1
    submissions = Counter(words[words.index("--comment") + 1] for words in site.submitted())
    names = "rule_neighbors_wildcards_toy.{}.k3"
    assert submissions == {names.format("cosine"): 1, names.format("l1"): 3, names.format("l2"): 1}, done.stdout
    assert "It isn't tried again" in done.stdout
    assert "SLURM forgets a job 2 s after its end (MinJobAge)" in done.stdout
    assert "(Rule: neighbors)" in done.stdout
    words = site.submitted()[0]
    assert words[words.index("--mem") + 1] == "64000"  # slurm/site.yaml's, where mine.yaml says nothing


def test_what_the_profile_reads_last_counts(tmp_path: Path) -> None:
    """slurm/site.yaml, then --configfile, then --config: what a later one doesn't name stays."""
    site = Site(tmp_path)
    site.settings.write_text(site.settings.read_text().replace("scale: toy\n", ""))
    planned = site.snakemake("-n", "grpo-r1-qwen-1.5b", "--config", "cluster={gpu: {per_node: 2}}")
    assert planned.returncode == 0, planned.stdout  # a run of the paper's scale: slurm/site.yaml says so
    assert "gres=gpu:2080ti:2" in planned.stdout  # the type of --configfile, the number of --config
    assert "cpus_per_task=6" in planned.stdout  # --configfile
    assert "runtime=1440" in planned.stdout  # slurm/site.yaml
