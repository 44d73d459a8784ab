"""A mistyped word on the command line of Snakemake is answered with the nearest name; all others still pass."""

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_study import ROOT

from ngrpo.study.naming import unknown_word


def snakemake(results: Path, *words: str) -> subprocess.CompletedProcess:
    """Run Snakemake on the project with results elsewhere; what it said is in stdout."""
    command = [sys.executable, "-m", "snakemake", *words, "--cores", "1", "--nolock", "--config", f"results={results}"]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ablation-roh"], "there is no target 'ablation-roh'\n{where}\n  do:    did you mean 'ablation-rho'?"),
        (
            ["ngrpo-rho0.51-toy"],
            "there is no target 'ngrpo-rho0.51-toy'\n{where}\n  do:    did you mean 'ngrpo-rho0.15-toy'?",
        ),
        (["main", "ngrpo-toi"], "there is no target 'ngrpo-toi'\n{where}\n  do:    did you mean 'ngrpo-toy'?"),
        (["qqqqqqqq"], "; all of them: snakemake --list-target-rules --config scale=toy\n"),
        (["all", "--until", "tran"], "there is no rule 'tran'\n{where}\n  do:    did you mean 'train'?"),
        (["all", "--forcerun", "analys"], "there is no rule 'analys'\n{where}\n  do:    did you mean 'analyze'?"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest_name(words: list[str], message: str, tmp_path: Path) -> None:
    ended = snakemake(tmp_path, "-n", *words)
    assert ended.returncode == 1
    assert message.format(where="  where: the command line, at scale toy") in ended.stdout
    assert "Traceback" not in ended.stdout
    assert len(ended.stdout) < 1500  # not the names of all targets


def test_a_claim_of_another_scale_is_said_to_be_one() -> None:
    claims = {"toy-control": "toy", "gumbel-over-base": "paper"}
    for word in ("decide-toy-control", "claim-toy-control"):
        said = str(unknown_word("target", word, ["claim-gumbel-over-base"], "paper", claims))
        assert said.startswith("claim 'toy-control' is one of scale toy\n")
        assert said.endswith("--config scale=toy")
    mistyped = str(unknown_word("target", "claim-gumbel-over-bas", ["claim-gumbel-over-base"], "paper", claims))
    assert "did you mean 'claim-gumbel-over-base'" in mistyped


@pytest.mark.parametrize(
    "words",
    [
        ["-n", "ngrpo-toy"],
        ["-n", "all", "--until", "sample-toy-held-out"],
        ["-n", "all", "--forcerun", "train"],
        ["-n", "{results}/toy/report/index.html"],
        ["--list-rules"],
        ["--unlock"],
        ["--mode", "subprocess", "--target-jobs", "dataset:dataset=toy-held-out", "--allowed-rules", "dataset"],
    ],
)
def test_names_files_and_snakemakes_own_calls_pass(words: list[str], tmp_path: Path) -> None:
    ended = snakemake(tmp_path, *(word.format(results=tmp_path) for word in words))
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "toy" / "data" / "toy-held-out.parquet").exists() == ("subprocess" in words)


@pytest.mark.parametrize("word", ["LICENSE", "some/file"])
def test_what_may_be_a_file_is_left_to_snakemake(word: str, tmp_path: Path) -> None:
    ended = snakemake(tmp_path, "-n", word)
    assert ended.returncode == 1
    assert f"No rule to produce {word}" in ended.stdout
    assert "there is no target" not in ended.stdout


def test_the_cluster_profile_makes_the_whole_study_where_no_target_is_named(tmp_path: Path) -> None:
    ended = snakemake(tmp_path, "-n", "--profile", "slurm", "--quiet", "rules")
    assert ended.returncode == 0, ended.stdout
    assert "train" in ended.stdout
