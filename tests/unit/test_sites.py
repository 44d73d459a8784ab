"""Sites as they are: names, options and limits of real clusters, and what the SLURM executor makes of them."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from source_tree import ROOT

from ngrpo.errors import UserError, ends_in_mistake
from ngrpo.slurm.partitions import gpus_of
from ngrpo.study.cluster import STAGES, Cluster
from ngrpo.study.sbatch import sbatch_options
from ngrpo.study.settings import Environments, Settings, read_settings
from ngrpo.study.snapshot import start


def cluster(**changes: Any) -> Cluster:
    """A site with these keys changed."""
    site: dict[str, Any] = {"account": "lab", "cpu": {"partition": "short"}, "gpu": {"partition": "big", "per_node": 4}}
    for key, value in changes.items():
        site[key] = {**site.get(key, {}), **value} if isinstance(value, dict) else value
    return Cluster.model_validate(site)


def submitted(site: Cluster, stage: str, nodes: int = 1) -> set[str]:
    """The words of the executor's own sbatch command for a job of this stage."""
    pytest.importorskip("snakemake_executor_plugin_slurm")
    from ngrpo.slurm.executor import sbatch_command

    tasks = site.tasks(nodes) if stage == "train" else None
    return set(shlex.split(sbatch_command({**site.needs(stage), "nodes": nodes, "tasks": tasks})))


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("gpu:2080ti:8(S:0-1)", {"2080ti": 8}),
        ("gpu:4090:4", {"4090": 4}),
        ("gpu:1g.10gb:7(S:0,2)", {"1g.10gb": 7}),
        ("gpu:a100-sxm4-80gb:4(S:0-1),nvme:1", {"a100-sxm4-80gb": 4}),
        ("gpu:nvidia_a100_3g.20gb:2(S:0),gpu:nvidia_a100_3g.20gb:2(S:1)", {"nvidia_a100_3g.20gb": 4}),
        ("gpu:tesla:no_consume:2", {"tesla": 2}),
        ("gpu:4(IDX:0-3)", {"": 4}),
        ("gpu", {"": 1}),
        ("shard:gpu:8,mps:100,gpumem:3", {}),
        ("(null)", {}),
        ("", {}),
    ],
)
def test_gpu_names_as_sinfo_prints_them(gres: str, gpus: dict[str, int]) -> None:
    assert gpus_of(gres) == gpus


@pytest.mark.parametrize("kind", ["2080ti", "1g.10gb", "nvidia_a100_3g.20gb", "h100"])
def test_a_gpu_type_that_the_executor_takes(kind: str) -> None:
    assert f"--gres=gpu:{kind}:4" in submitted(cluster(gpu={"type": kind}), "train")
    assert f"--gpus-per-node={kind}:1" in submitted(cluster(gpu={"type": kind, "request": "gpus-per-node"}), "sample")
    assert f"--gpus={kind}:4" in submitted(cluster(gpu={"type": kind, "request": "gpus"}), "train")


def test_a_gpu_type_of_digits_alone_is_a_name() -> None:
    assert "--gres=gpu:4090:4" in submitted(cluster(gpu={"type": 4090}), "train")
    assert cluster(account=123456, cpu={"partition": 2024}).needs("grade")["slurm_account"] == "123456"


@pytest.mark.parametrize("request_by", ["gres", "gpus-per-node", "gpus"])
def test_a_gpu_type_that_the_executor_refuses_is_asked_for_in_another_way(request_by: str) -> None:
    site = cluster(gpu={"type": "a100-sxm4-80gb", "request": request_by})
    words = submitted(site, "train")
    assert {"--gpus-per-node=a100-sxm4-80gb:4", "--ntasks=1"} <= words
    assert not any(word.startswith("--gres") for word in words)


def test_several_nodes_are_not_made_one_by_a_single_task() -> None:
    """sbatch reduces --nodes to --ntasks, and the executor asks for one task where it sees no GPUs of its own."""
    site = cluster(gpu={"type": "a100-sxm4-80gb"}, nodes={"big-model": 2})
    assert {"--nodes=2", "--ntasks=2"} <= submitted(site, "train", 2)
    plain = submitted(cluster(nodes={"big-model": 2}), "train", 2)
    assert "--nodes=2" in plain
    assert not any(word.startswith("--ntasks") for word in plain)
    with pytest.raises(UserError, match="counts the GPUs of all nodes together"):
        cluster(gpu={"request": "gpus"}, nodes={"big-model": 2})


@pytest.mark.parametrize(
    "extra",
    [
        "--qos=long --constraint='a100&nvlink'",
        "--qos long -C 'a100&nvlink'",
        "-q long -C'a100&nvlink'",
        "-qlong -C=a100&nvlink",
    ],
)
def test_options_that_have_a_key_may_stand_in_extra(extra: str) -> None:
    for stage in STAGES:
        words = submitted(cluster(extra=f"{extra} --exclude=n7"), stage)
        assert {"--qos=long", "a100&nvlink", "-C", "--exclude=n7"} <= words, stage


def test_terms_of_one_kind_of_node_count_before_those_of_all() -> None:
    site = cluster(
        account="lab@cpu",
        qos="normal",
        reservation="course",
        exclusive=True,
        cpu={"exclusive": False},
        gpu={"account": "lab@h100", "qos": "gpu-long", "constraint": "nvlink", "extra": "--mail-type=FAIL"},
    )
    gpu, cpu = submitted(site, "sample"), submitted(site, "grade")
    assert {"lab@h100", "--qos=gpu-long", "nvlink", "--reservation=course", "--exclusive", "--mail-type=FAIL"} <= gpu
    assert {"lab@cpu", "--qos=normal", "--reservation=course"} <= cpu
    assert not cpu & {"--exclusive", "nvlink", "--mail-type=FAIL"}


def test_memory_as_a_site_takes_it() -> None:
    assert {"--mem", "256000"} <= submitted(cluster(), "train")
    assert {"--mem-per-cpu", "8000"} <= submitted(cluster(memory="per-cpu"), "train")
    for stage in STAGES:
        assert not any(word.startswith("--mem") for word in submitted(cluster(memory="none"), stage))


def test_another_generic_resource_beside_the_gpus() -> None:
    words = submitted(cluster(extra="--gres=nvme:1", gpu={"type": "h100"}), "train")
    assert {"--gres=nvme:1", "--gpus-per-node=h100:4"} <= words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": "--mem=4G"}, "set cluster.cpu.memory_gb"),
        ({"extra": "-t 10:00"}, "set cluster.walltime"),
        ({"extra": "--gres=gpu:8"}, "set cluster.gpu.per_node"),
        ({"extra": "-G8"}, "set cluster.gpu.per_node"),
        ({"gpu": {"extra": "--cpus-per-gpu 4"}}, r"cluster\.gpu\.extra"),
        ({"extra": "--nodes=2"}, "set cluster.nodes"),
        ({"extra": "-J mine"}, "leave it out"),
        ({"extra": "--signal=USR1@60"}, "leave it out"),
        ({"extra": "-M other"}, "SLURM_CLUSTERS"),
        ({"extra": "-p big"}, "set cluster.cpu.partition and cluster.gpu.partition"),
        ({"extra": "qos=long"}, "'qos=long' is no sbatch option"),
        ({"extra": "--comment='open"}, "not readable as sbatch options"),
        ({"qos": "long", "extra": "-q short"}, "qos is given twice: long and, in extra, short"),
        ({"extra": "--exclude --mail-type=END"}, "--exclude needs a value"),
        ({"extra": "--reservation="}, "--reservation needs a value"),
        ({"extra": "'-A x; rm'"}, "no sbatch option"),
        ({"extra": "--a\x1b[31m"}, "no sbatch option"),
        ({"tensor_parallel": {"big-model": 3}}, "4 GPUs of a node don't make engines of 3"),
    ],
)
def test_what_cannot_be_asked_for_so_is_refused_when_it_is_read(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cluster(**changes)


def test_the_same_value_twice_is_no_contradiction() -> None:
    assert cluster(qos="long", exclusive=True, extra="-q long --exclusive").needs("grade")["qos"] == "long"


def test_options_by_their_long_names() -> None:
    assert sbatch_options("-x n1,n2 --exclusive -k --licenses 'a:1, b' --nice=5", "extra") == {
        "exclude": "n1,n2", "exclusive": None, "no-kill": None, "licenses": "a:1, b", "nice": "5"
    }  # fmt: skip


def shell(environments: Environments, command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a job's command as Snakemake would."""
    prefix = Settings(environments=environments).shell_prefix(Path("study")).replace("{{", "{").replace("}}", "}")
    return subprocess.run(["bash", "-c", prefix + command], capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "HOME": "/home/me", **variables})  # fmt: skip


def test_a_job_finds_its_modules_variables_and_scratch(tmp_path: Any) -> None:
    environments = Environments(
        setup='load() { export LOADED="$1 ${NOT_SET}"; }\nload "cuda 12"',
        scratch="$WHERE/my scratch/${SLURM_JOB_ID}",
        variables={"HF_HOME": "~/hf home", "TRITON_CACHE_DIR": "$WHERE/it's $(no) `command`", "PRICE": "5$"},
    )
    job = {"WHERE": str(tmp_path), "SLURM_JOB_ID": "17"}
    done = shell(environments, 'printf "%s\n" "$LOADED" "$HF_HOME" "$TRITON_CACHE_DIR" "$PRICE" "$TMPDIR"', **job)
    scratch = tmp_path / "my scratch" / "17"
    assert done.stdout.splitlines() == [
        "cuda 12 ", "/home/me/hf home", f"{tmp_path}/it's $(no) `command`", "5$", str(scratch)
    ]  # fmt: skip
    assert scratch.stat().st_mode & 0o777 == 0o700
    missing = shell(environments, "echo not here", WHERE=str(tmp_path))
    assert missing.returncode == 1
    assert "not here" not in missing.stdout
    assert "SLURM_JOB_ID is not set (environments.scratch)" in missing.stderr
    assert ends_in_mistake(missing.stderr)


def test_a_setup_line_that_fails_ends_the_job() -> None:
    done = shell(Environments(setup="false\ntrue"), "echo not here")
    assert done.returncode == 1
    assert done.stdout == ""
    assert ends_in_mistake(done.stderr)
    later = shell(Environments(setup="true"), "false")
    assert (later.returncode, later.stderr) == (1, "")
    assert shell(Environments(), "echo here").stdout == "here\n"


def test_an_environment_that_is_not_there_is_a_mistake() -> None:
    done = shell(Environments(train="no/such folder"), "train_env ngrpo train 2>&1 | cat")
    assert done.returncode == 127
    assert ends_in_mistake(done.stdout)
    assert "environments.train: no/such folder" in done.stdout


def test_a_variable_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match=r"environments\.variables\.HF-HOME"):
        read_settings({"environments": {"variables": {"HF-HOME": "x"}}})


@pytest.mark.parametrize("key", ["account", "qos", "constraint", "reservation", "partition", "type"])
def test_a_sites_name_means_nothing_to_a_shell(key: str) -> None:
    def named(value: object) -> Cluster:
        return cluster(gpu={key: value}) if key in ("partition", "type") else cluster(**{key: value})

    for name in ("it's", "$(id)", "a b", "a\nb", "`id`", "a;b", "-x", "--wrap=id", True, 1.5, ["a"]):
        with pytest.raises((UserError, ValidationError)):
            named(name)
    for name in ("", "  ", None):
        assert not [word for word in submitted(named(name), "sample") if word in ("''", "--qos=", "--reservation=")]
    for name in ("lab@h100", "a,b", "a-b_c.d", 2024):
        assert str(name) in " ".join(submitted(named(name), "train"))


def test_a_constraint_may_be_an_expression() -> None:
    assert "[rack1*2&rack2*4]" in submitted(cluster(constraint="[rack1*2&rack2*4]"), "train")


def test_nodes_and_engines_are_counted_from_one_and_given_to_what_there_is(tmp_path: Path) -> None:
    for key in ("nodes", "tensor_parallel"):
        for number in (0, -1, True, 1.5):
            with pytest.raises((UserError, ValidationError)):
                cluster(**{key: {"r1-qwen-7b": number}})
    site = {"account": "lab", "nodes": {"r1-qwen-7B-x": 2}}
    start_with = {"scale": "toy", "config": str(ROOT / "config"), "results": str(tmp_path)}
    with pytest.raises(UserError, match=r"key|pattern|cluster\.nodes"):
        start({**start_with, "cluster": site}, looks_only=True)
    with pytest.raises(UserError, match="did you mean 'r1-qwen-7b'"):
        start({**start_with, "cluster": {**site, "nodes": {"r1-qwn-7b": 2}}}, looks_only=True)
    start({**start_with, "cluster": {**site, "nodes": {"r1-qwen-7b": 2, "ngrpo-r1-qwen-7b": 4}}}, looks_only=True)
