"""Folders may be called anything that a file system takes: each stage's program gets them letter by letter."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings
from synthetic_study import ROOT
from test_elsewhere import folder_of

from ngrpo.errors import UserError
from ngrpo.planning.snakemake_dag import snakemake_dag
from ngrpo.study.expand import load_study
from ngrpo.study.layout import Results
from ngrpo.study.naming import STAGES
from ngrpo.study.settings import read_settings

NAME = 'it\'s $(touch pwned) `touch pwned` "ρ" \\ ; & | > #!~*?'
NOTE = """#!/bin/bash
printf '%s\\0' "$@" > "$CALLED"
"""


def add_rows_from_elsewhere(study: Path, top: Path) -> None:
    """Give the table main a policy's folder and a file of predictions, both of that name."""
    predicted = top / f"predicted {NAME}.jsonl"
    predicted.write_text('{"id": "1", "response": "7"}\n')
    plain = yaml.safe_load(study.read_text())
    plain["tables"]["main"]["rows"] += [
        {"label": "theirs", "policy": {"folder": str(folder_of(top / f"theirs {NAME}"))}},
        {"label": "predicted", "predictions": str(predicted)},
    ]
    study.write_text(yaml.safe_dump(plain, sort_keys=False))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The words that each stage's program was called with, in a study all of whose folders have that name."""
    top = tmp_path_factory.mktemp("top")
    folders = {kind: top / f"{kind} {NAME}" for kind in ("config", "results", "data_folder", "environment")}
    shutil.copytree(ROOT / "config", folders["config"])
    add_rows_from_elsewhere(folders["config"] / "study.yaml", top)
    folders["data_folder"].mkdir()
    for name in ("train_sample_975.jsonl", "aime24.jsonl", "amc23.jsonl"):
        (folders["data_folder"] / name).touch()
    for program in ("ngrpo", "papermill"):
        path = folders["environment"] / "bin" / program
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(NOTE)
        path.chmod(0o755)
    config = {kind: str(path) for kind, path in folders.items() if kind != "environment"} | {"scale": "smoke"}
    config["environments"] = {"train": str(folders["environment"]), "workflow": str(folders["environment"])}
    quiet = OutputSettings(dryrun=True, quiet={Quietness.ALL}, skip_plugin_handlers=True)
    words = {}
    with contextlib.chdir(ROOT), SnakemakeApi(quiet) as api:
        asked = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=config),
            snakefile=Path("Snakefile"),
        )
        asked.dag(DAGSettings(targets=frozenset({"all", "crate"})))
        workflow = asked._workflow
        workflow._prepare_dag(forceall=True, ignore_incomplete=False, lock_warn_only=True, nolock=True)
        workflow.async_run(workflow.dag.init())
        prefix = read_settings(config).shell_prefix(top / NAME).replace("{{", "{").replace("}}", "}")
        for job in {job.rule.name: job for job in workflow.dag.jobs if not job.rule.norun}.values():
            for log in job.log:
                Path(log).parent.mkdir(parents=True, exist_ok=True)
            called = {"CALLED": str(top / "called"), "PATH": "/usr/bin:/bin"}
            run = subprocess.run(
                ["bash", "-c", prefix + job.shellcmd], cwd=top, env=called, capture_output=True, check=False
            )
            assert run.returncode == 0, (job.rule.name, run.stderr)
            words[job.rule.name.split("-")[0]] = (top / "called").read_text().split("\0")[:-1]
            (top / "called").unlink()
    assert not list(top.rglob("pwned"))
    return words


def test_every_stage_gets_every_path_as_it_is(calls: dict[str, list[str]]) -> None:
    assert set(calls) == set(STAGES) - {"decide"}  # no claim is judged at this scale, so none is decided
    for stage, words in calls.items():
        named = [word for word in words if "touch" in word]
        assert named, stage
        assert all(NAME in word for word in named), (stage, named)
        assert not [word for word in words if word in NAME.split()], (stage, words)


def test_a_data_set_of_no_archive_is_asked_for_without_one(calls: dict[str, list[str]]) -> None:
    assert not {"--mirror", "--sha256", ""} & set(calls["dataset"])


def test_stages_of_the_whole_study_get_its_folders(calls: dict[str, list[str]]) -> None:
    for stage in ("analyze", "report", "crate", "notebook"):
        assert {"--scale", "--config", "--results"} <= set(calls[stage]) or {"scale", "results"} <= set(calls[stage])
    assert any(word.startswith("/") and word.endswith(NAME) for word in calls["dataset"])


@pytest.mark.parametrize("key", ["results", "scale"])
def test_a_name_that_snakemake_would_read_as_a_pattern_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=r"can't have '\{' in a path"):
        read_settings({key: "a{b}"})


def test_a_home_folder_is_one_in_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    given = {"data_folder": "~/data", "config": "~/config", "results": "~/results"}
    settings = read_settings({**given, "environments": {"train": "~/venv", "workflow": "deployed"}})
    folders = (settings.data_folder, settings.config, settings.results, settings.environments.train)
    assert folders == tuple(f"{tmp_path}/{name}" for name in ("data", "config", "results", "venv"))
    assert settings.environments.workflow == "deployed"


def test_another_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"(?s)there is no configuration in 'config'.*where: .*start in the project"):
        load_study(Path("config"), "toy")


def test_a_data_folder_that_moved_is_the_same_data(tmp_path: Path) -> None:
    """Its path is in no job's parameters; another content is."""
    given = []
    for name, text in (("a", "1"), ("it's b", "1"), ("c", "2")):
        folder = tmp_path / name
        folder.mkdir()
        for file in ("train_sample_975.jsonl", "aime24.jsonl", "amc23.jsonl"):
            (folder / file).write_text(text)
        with contextlib.chdir(ROOT):
            study, files = load_study(Path("config"), "smoke"), Results(tmp_path / "results" / "smoke")
            with snakemake_dag(study, files, ("fetch",), folder) as dag:
                jobs = sorted((j for j in dag.jobs if j.rule.name == "dataset"), key=str)
                given.append([(sorted(map(str, job.input)), dict(job.params.items())) for job in jobs])
    assert given[0] == given[1] != given[2]


def test_a_place_where_no_folder_can_be_is_named_when_snakemake_starts() -> None:
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "--cores", "1", "--config", "results=/dev/null"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = ended.stdout + ended.stderr
    assert "not a directory" in said
    assert "name a folder; a part of this path is a file" in said
    assert "pathlib.py" not in said
