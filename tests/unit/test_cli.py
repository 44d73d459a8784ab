"""Every command runs with its defaults: it ends well or with one message, never with a traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from traceback import format_exception
from typing import get_args

import click
import pytest
from click.testing import CliRunner, Result
from synthetic_study import ROOT, make_study

from ngrpo.cli import main
from ngrpo.cli.graded import CONVENTIONS
from ngrpo.study.config import Grading
from ngrpo.study.layout import Results

LINKED, COPIED = ("workflow", "notebooks"), ("rules", "envs")
ANSWERS = {"id": "1", "response": "so \\boxed{7}", "answer": "7", "kind": "math"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder as a clone is, with a small finished toy study in results/toy."""
    folder = tmp_path_factory.mktemp("project")
    make_study(folder / "results", problems=4)
    shutil.move(folder / "results" / "config", folder / "config")
    shutil.copy(ROOT / "config" / "costs.yaml", folder / "config")
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "curves.csv").write_text("step,critic/rewards/mean\n1,0.5\n2,0.75\n")
    (folder / "answers.jsonl").write_text(json.dumps(ANSWERS) + "\n")
    return folder


TOY = Results(Path("results/toy"))
RUN, EVALUATION = TOY.run("ngrpo-toy"), TOY.evaluation("ngrpo-toy/standard/toy-held-out")
BASE, PROBLEMS = TOY.model("toy"), TOY.dataset("toy-held-out").problems
COMMANDS = {
    "dataset": [TOY.dataset("toy-held-out").spec, "--out", "data/toy-held-out.parquet"],
    "model": [BASE.spec, "--out", BASE.folder],
    "policy": [BASE.spec, "--base", BASE.folder, "--out", "policy"],
    "predictions": [EVALUATION.spec, "--source", "answers.jsonl", "--problems", PROBLEMS,
                    "--out", "out.samples.parquet"],
    "training-data": [TOY.training_data("toy-train", "toy").spec, "--problems", PROBLEMS, "--model", BASE.folder,
                      "--out", "out.parquet"],
    "neighbors": [TOY.neighbors("toy.cosine.k3").spec, "--model", BASE.folder, "--out", "out.safetensors"],
    "train": [RUN.spec, "--model", BASE.folder, "--data", PROBLEMS, "--validation", PROBLEMS, "--out", "out"],
    "watch": [],
    "sample": [EVALUATION.spec, "--model", BASE.folder, "--data", TOY.data, "--out", "out"],
    "serve": [BASE.folder, "--neighbors", "nowhere.safetensors"],
    "diagnostics": [RUN.spec, "--model", BASE.folder, "--neighbors", "none", "--problems", PROBLEMS,
                    "--out", "out.json"],
    "grade": ["answers.jsonl", "--out", "graded.jsonl"],
    "analyze": ["main", "--out", TOY.table("main")],
    "report": ["--out", TOY.report.page],
    "import": ["theirs", "curves.csv"],
    "crate": ["--out", "crate"],
    "verify": ["crate"],
    "table": [],
    "show": ["ngrpo-toy/standard/toy-held-out", "toy-held-out-0001"],
    "evaluate": ["nowhere", "--benchmark", "toy"],
    "diff": ["toy/standard/toy-held-out", "ngrpo-toy/standard/toy-held-out"],
    "doctor": [],
    "plan": [],
    "ledger": [],
    "clean": [],
    "audit-paper": [],
    "power": [],
    "claim": [],
    "decide": ["toy-grpo-learns"],
    "schema": [],
}  # fmt: skip
"""Each command with what it can't do without, in an order in which later ones find what earlier ones wrote."""
MUST_WORK = {
    "claim",
    "dataset",
    "grade",
    "analyze",
    "import",
    "crate",
    "verify",
    "table",
    "plan",
    "ledger",
    "clean",
    "schema",
}


def run(project: Path, monkeypatch: pytest.MonkeyPatch, *words: object) -> Result:
    monkeypatch.chdir(project)
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs_with_its_defaults(command: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(project, monkeypatch, command, *COMMANDS[command])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), format_exception(ended.exception)
    assert ended.exit_code == 0 or "error: " in ended.output or command == "doctor", ended.output
    assert ended.exit_code == 0 or command not in MUST_WORK, ended.output


def test_no_command_is_left_out_and_none_has_another_required_option() -> None:
    assert set(COMMANDS) == set(main.commands)
    for name, command in main.commands.items():
        required = {p.opts[0] for p in command.params if p.required and isinstance(p, click.Option)}
        assert required == {word for word in COMMANDS[name] if str(word).startswith("--")} - {"--neighbors"} | (
            required & {"--neighbors"}
        ), name


def test_a_command_that_raises_is_seen_by_this_test(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.commands["table"], "callback", lambda **_: 1 / 0)
    assert isinstance(run(project, monkeypatch, "table").exception, ZeroDivisionError)


def test_a_package_of_the_other_environment_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(project, monkeypatch, "model", *COMMANDS["model"])
    assert "isn't in this environment" in ended.output
    assert "environments.md" in ended.output


def test_grades_without_workers_use_all_cores(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(project, monkeypatch, "grade", "answers.jsonl", "--out", "one.jsonl").exit_code == 0
    assert json.loads((project / "one.jsonl").read_text())["grade"] == "correct"
    assert run(project, monkeypatch, "grade", "answers.jsonl", "--out", "x", "--workers", "0").exit_code == 2


def test_module_and_program_are_one_command_line() -> None:
    words = [sys.executable, "-m", "ngrpo", "plna"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, "did you mean 'plan'" in ended.stderr) == (1, True)


def test_a_studys_grading_settings_are_options_of_grade() -> None:
    unset, chosen = Grading(), Grading(convention="release-gpqa", tolerance=0.01, sets_equal_relations=True,
                                       letters="ABCDE", seconds=9)  # fmt: skip
    assert unset.options() == ""
    words = ["answers.jsonl", "--out", "out", *chosen.options().split()]
    read = main.commands["grade"].make_context("grade", words).params
    for field in Grading.model_fields:
        assert read[field] == getattr(chosen, field), field
    assert set(get_args(Grading.model_fields["convention"].annotation)) == set(CONVENTIONS)
