"""What each stage asks of a cluster, and what is read from SLURM's own answers (here written down, from 22.05)."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from ngrpo.errors import Unfinished, UserError, ends_in_mistake, file_error
from ngrpo.slurm.executor import Answers
from ngrpo.slurm.partitions import partitions
from ngrpo.slurm.preflight import before_submission, check_cluster
from ngrpo.slurm.squeue import job_end, orphans
from ngrpo.study.cluster import Cluster
from ngrpo.study.settings import read_settings

SITE = {
    "account": "lab",
    "cpu": {"partition": "short"},
    "gpu": {"partition": "h100", "type": "h100", "per_node": 8},
    "walltime": 1440,
}
CLUSTER = Cluster.model_validate(SITE)


def test_a_sampling_job_takes_one_gpu_and_a_training_a_node() -> None:
    assert CLUSTER.needs("train")["gres"] == "gpu:h100:8"
    assert CLUSTER.needs("sample")["gres"] == "gpu:h100:1"
    assert CLUSTER.needs("sample")["cpus_per_task"] * 8 == CLUSTER.needs("train")["cpus_per_task"]
    for stage in ("grade", "neighbors", "training-data"):
        needs = CLUSTER.needs(stage)
        assert "gres" not in needs
        assert needs["slurm_partition"] == "short"


def test_only_a_training_is_told_to_leave_and_no_job_outlasts_the_time_limit() -> None:
    assert CLUSTER.needs("train")["slurm_extra"] == "--signal=TERM@300"
    assert "slurm_extra" not in CLUSTER.needs("sample")
    short = Cluster.model_validate({**SITE, "walltime": 40, "extra": "--qos=long"})
    assert short.needs("train")["slurm_extra"] == "--signal=TERM@240"  # not before it has begun
    assert short.needs("train")["qos"] == "long"
    assert short.needs("grade")["runtime"] == 40


def test_what_a_site_does_not_set_is_not_asked_for() -> None:
    needs = Cluster().needs("train")
    assert not needs.keys() & {"slurm_account", "slurm_partition"}
    assert needs["gres"] == "gpu:8"
    assert "slurm_account" not in Cluster(account="none").needs("grade")


def test_one_machine_is_asked_for_nothing() -> None:
    local = read_settings({})
    assert local.needs("sample").keys() == {"checkpoint_minutes"}
    assert local.layout("ngrpo-toy", "toy") == (1, 1)


def test_nodes_and_engines_are_named_by_run_or_by_model() -> None:
    site = {**SITE, "nodes": {"toy": 2, "ngrpo-toy": 4}, "tensor_parallel": {"toy": 2}}
    settings = read_settings({"cluster": site})
    assert settings.layout("ngrpo-toy", "toy") == (4, 2)
    assert settings.layout("grpo-toy", "toy") == (2, 2)
    assert settings.layout("grpo-other", "other") == (1, 1)


def test_a_job_shorter_than_a_checkpoint_interval_is_refused_when_it_is_read() -> None:
    with pytest.raises(UserError, match="no job would ever save its work"):
        read_settings({"cluster": {**SITE, "walltime": 30, "checkpoint_minutes": 30}})


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(UserError, match=r"cluster\.gpu\.kind"):
        read_settings({"cluster": {**SITE, "gpu": {"kind": "h100"}}})


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """SLURM's commands, each printing what is given."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def answer(name: str, *lines: str) -> None:
        (tmp_path / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.txt\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    answer(
        "sinfo",
        "short|4:00:00|64|256000+|(null)|10",
        "h100|2-00:00:00|96+|1000000|gpu:h100:8(S:0-1)|3",
        "h100|2-00:00:00|128|2000000|gpu:h100_pcie:4(S:0),gpu:h100:2(S:1)|1",
        "any|infinite|32|64000|gpu:4|2",
    )
    answer("sacctmgr", "lab", "other")
    answer("squeue")
    return answer


def test_partitions_of_mixed_nodes(commands) -> None:
    by_name = partitions()
    assert by_name["h100"].gpus == {"h100": 8, "h100_pcie": 4}
    assert (by_name["h100"].minutes, by_name["h100"].cpus, by_name["h100"].nodes) == (2880, 128, 4)
    assert by_name["any"].gpus == {"": 4}
    assert by_name["any"].minutes == float("inf")
    assert by_name["short"].memory_mb == 256000
    assert "account: lab" in check_cluster(CLUSTER)


def test_an_account_of_somebody_else(commands) -> None:
    with pytest.raises(UserError, match="you have no account 'labs'") as caught:
        check_cluster(Cluster.model_validate({**SITE, "account": "labs"}))
    assert "yours: lab, other" in str(caught.value)


@pytest.mark.parametrize("extra", ["--gres=nvme:1,shm:2", "--licenses='a -n b'", "--constraint=x --prefer='-C '"])
def test_what_the_executor_would_refuse_is_refused_before_anything_is_submitted(commands, extra: str) -> None:
    with pytest.raises(UserError, match="the SLURM executor wouldn't submit a training-data job"):
        check_cluster(Cluster.model_validate({**SITE, "extra": extra}))
    check_cluster(Cluster.model_validate({**SITE, "extra": extra.split()[0].partition(",")[0].replace("'a", "a")}))


def test_an_account_that_the_executor_cannot_check(commands, tmp_path: Path) -> None:
    for name in ("sacctmgr", "sshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho accounting is off >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(UserError, match="can't check the account 'lab'") as caught:
        check_cluster(CLUSTER)
    assert "SBATCH_ACCOUNT=lab" in str(caught.value)
    check_cluster(Cluster.model_validate({**SITE, "account": "none"}))


def test_how_long_squeue_remembers(commands) -> None:
    commands("scontrol", "MessageTimeout          = 10 sec", "MinJobAge               = 30 sec")
    assert "SLURM forgets a job 30 s after its end (MinJobAge)" in check_cluster(CLUSTER)[-1]
    commands("scontrol", "MinJobAge               = 300 sec")
    assert "the rest" in check_cluster(CLUSTER)[-1]


def test_several_partitions_are_what_each_of_them_gives(commands) -> None:
    assert check_cluster(Cluster.model_validate({**SITE, "cpu": {"partition": "short,any", "cpus": 32}}))
    with pytest.raises(UserError, match="more than 32"):
        check_cluster(Cluster.model_validate({**SITE, "cpu": {"partition": "short,any", "cpus": 33}}))


def test_ends_of_jobs_that_slurm_no_longer_shows(commands, tmp_path: Path) -> None:
    answers = Answers()
    done, failed = tmp_path / "done.log", tmp_path / "failed.log"
    done.write_text("1 of 1 steps (100%) done\n")
    failed.write_text("Exiting because a job execution failed.\n")
    answers.logs = {"1": done, "2": failed, "3": tmp_path / "none.log", "4": done}
    commands("sacct")  # accounting knows none of them
    assert answers.completed({"4": "RUNNING"}, by_squeue=True, now=0) == {"4": "RUNNING"}
    assert answers.completed({"2": "RUNNING", "4": "RUNNING"}, by_squeue=True, now=59).keys() == {"2", "4"}
    ended = {"1": "COMPLETED", "3": "UNKNOWN", "4": "RUNNING"}  # 2 was shown in between
    assert answers.completed({"4": "RUNNING"}, by_squeue=True, now=61) == ended
    assert answers.completed({}, by_squeue=True, now=200)["2"] == "FAILED"
    commands("sacct", "CANCELLED by 1000")
    assert answers.completed({}, by_squeue=True, now=300)["1"] == "CANCELLED"
    assert answers.completed({"9": "CANCELLED by 1000"}, by_squeue=False, now=400) == {"9": "CANCELLED"}


def test_only_a_users_mistake_at_a_logs_end_is_one() -> None:
    mistake = str(UserError("no such metric", where="spec", do="mend it"))
    assert ends_in_mistake(f"[train] starting\nerror: {mistake}\n")
    assert ends_in_mistake("error: without a place")
    assert ends_in_mistake(f"error: {mistake}\n(raylet) shutting down\n")
    assert not ends_in_mistake(f"error: {mistake}\nunfinished: step 3 is saved\n  do:    run it again\n")
    assert not ends_in_mistake("error: command 'gcc' failed\nTraceback (most recent call last):\nRuntimeError: no\n")
    assert not ends_in_mistake("Traceback (most recent call last):\nRuntimeError: CUDA error\n")
    assert not ends_in_mistake("")
    for code, again in ((errno.ENOSPC, True), (errno.EIO, True), (errno.EACCES, False)):
        assert isinstance(file_error(OSError(code, os.strerror(code))), Unfinished) == again


def test_jobs_of_a_dead_snakemake_in_this_folder_are_found(commands) -> None:
    here = Path.cwd()
    commands(
        "squeue",
        f"7|RUNNING|{here}|rule_train_wildcards_ngrpo-toy",
        f"8|PENDING|{here}|rule_grade_wildcards_a_b",
        f"9|COMPLETED|{here}|rule_train_wildcards_grpo-toy",
        "10|RUNNING|/somewhere/else|rule_train_wildcards_ngrpo-toy",
        f"11|RUNNING|{here}|(null)",
    )
    assert orphans() == {"7": "train ngrpo-toy", "8": "grade a_b"}
    with pytest.raises(UserError, match=r"still in the queue: 7 \(train ngrpo-toy\); 8") as caught:
        before_submission(CLUSTER)
    assert "scancel --signal=TERM --full 7 8" in str(caught.value)


def test_a_machine_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="no `sinfo` on this machine"):
        check_cluster(CLUSTER)


def test_when_a_job_ends(commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert job_end() is None
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    commands("squeue", "2030-01-02T03:04:05")
    assert job_end() == 1893553445
    commands("squeue", "N/A")
    assert job_end() is None
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1893553446")
    assert job_end() == 1893553446
