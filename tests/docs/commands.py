"""The commands that pages quote: each form has a checker, and a form without one is an error that says what to do.

`make`: the target and its variables exist. `ngrpo`: click accepts the options and arguments. `snakemake`: its own
parser accepts the line; what it would make is asked by `dry_runs`, all targets of equal settings in one dry run.
`pytest` and `python -m`: the files and modules exist. Commands of other programs (FOREIGN) are only recognized.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click
from names import Names
from snakemake.cli import parse_args

from ngrpo.cli import main
from ngrpo.doctor import parser as doctor_parser

FOREIGN = {
    "apptainer", "cd", "chmod", "git", "huggingface-cli", "mkdir", "pre-commit", "printf", "sacctmgr", "scancel",
    "sinfo", "squeue", "unzip",
}  # fmt: skip
NO_DRY_RUN = ("report", "unlock", "rulegraph", "lint")  # snakemake's options that make nothing of the study
STAND_IN = {"[TARGET]": "all", "…": ""}


class Unknown(Exception):
    """A command that isn't what this project offers, or a form that nothing here checks."""


@dataclass(frozen=True)
class Asked:
    """What a `snakemake` command asks for: profile, --config entries, targets."""

    profile: str | None = None
    config: tuple[str, ...] = ()
    targets: tuple[str, ...] = field(default=(), compare=False)


def check(command: str, names: Names) -> Asked | None:
    """Raise Unknown where the command wouldn't work; what it asks of Snakemake, if it does.

    A line of several commands is checked part by part.
    """
    asked = None
    for part in re.split(r" && |; ", command):
        asked = _check(part, names) or asked
    return asked


def _check(command: str, names: Names) -> Asked | None:
    for text, stands in STAND_IN.items():
        command = command.replace(text, stands)
    try:
        words = shlex.split(command)
    except ValueError as e:
        raise Unknown(f"not a shell command: {e}") from None
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if not words:
        raise Unknown("there is no command")
    folder, _, program = words[0].rpartition("/")
    if folder and not re.fullmatch(r"\.venv(-\w+)?/bin", folder):
        raise Unknown(f"'{folder}' is no environment's folder of programs")
    rest = words[1:]
    if program == "make":
        _make(rest, names)
    elif program == "ngrpo":
        _ngrpo(rest)
    elif program == "snakemake":
        return _snakemake(rest)
    elif program in ("python", "python3"):
        _python(rest, names)
    elif program in ("pytest", "ruff", "mypy", "snakefmt"):
        _paths(rest, names)
    elif program not in FOREIGN:
        raise Unknown(
            f"nothing checks commands of '{program}': write a checker in tests/docs/commands.py, or, if it is another "
            "project's, add it to FOREIGN there"
        )
    return None


def _make(words: list[str], names: Names) -> None:
    makefile = (names.root / "Makefile").read_text(encoding="utf-8")
    for word in words:
        variable = re.fullmatch(r"([A-Z_]+)=.*", word)
        if variable and f"$({variable[1]})" not in makefile and f"$(or $({variable[1]})," not in makefile:
            raise Unknown(f"the Makefile uses no variable {variable[1]}")
        if not variable and not re.fullmatch(r"-[jk]\d*", word) and word not in names.targets:
            raise Unknown(f"make has no target '{word}'")


def _ngrpo(words: list[str]) -> None:
    if words[:1] == ["doctor"]:
        problem = io.StringIO()
        try:
            with contextlib.redirect_stderr(problem):
                doctor_parser().parse_args(words[1:])
        except SystemExit:
            raise Unknown(f"ngrpo doctor: {problem.getvalue().strip().splitlines()[-1]}") from None
        return
    if not words or words[0] in ("--help", "--version"):
        return
    command = main.get_command(click.Context(main), words[0])
    if command is None:
        raise Unknown(f"ngrpo has no command '{words[0]}'")
    try:
        command.make_context(words[0], list(words[1:]), parent=click.Context(main))
    except click.exceptions.Exit:  # --help
        return
    except click.MissingParameter as e:
        if len(words) > 1:  # a command named alone stands for itself
            raise Unknown(f"ngrpo {words[0]}: {e.format_message()}") from None
    except click.ClickException as e:
        raise Unknown(f"ngrpo {words[0]}: {e.format_message()}") from None


def _snakemake(words: list[str]) -> Asked | None:
    problem = io.StringIO()
    try:
        with contextlib.redirect_stderr(problem):
            _, args = parse_args(words)
    except SystemExit:
        raise Unknown(f"snakemake: {problem.getvalue().strip().splitlines()[-1]}") from None
    if any(getattr(args, option, None) for option in NO_DRY_RUN):
        return None
    return Asked(" ".join(args.profile or ()) or None, tuple(args.config or ()), tuple(sorted(args.targets)))


def _python(words: list[str], names: Names) -> None:
    if words[:1] == ["-"]:  # a script that a worked example runs
        return
    if words[:1] != ["-m"]:
        _paths(words, names)
    elif words[1] != "pytest":
        path = words[1].replace(".", "/")
        places = [f"{base}{path}{end}" for base in ("", "workflow/") for end in (".py", "/__main__.py")]
        if not any(place in names.files for place in places):
            raise Unknown(f"there is no module '{words[1]}' to run")


def _paths(words: list[str], names: Names) -> None:
    for word in words:
        if "/" in word and not word.startswith("-") and not names.path(word.split("::")[0]):
            raise Unknown(f"there is no file '{word}'")


def dry_runs(asked: Iterable[Asked], root: Path, folder: Path) -> list[str]:
    """Ask Snakemake whether it could make all of this, without making anything; one message for each refusal.

    root: the checkout. folder: an empty one, where specs are written.
    """
    together: dict[Asked, set[str]] = {}
    for each in asked:
        together.setdefault(each, set()).update(each.targets or ("all",))
    problems = folder / "problems"
    problems.mkdir(parents=True)
    for name in ("train_sample_975.jsonl", "aime24.jsonl", "amc23.jsonl"):  # those of the scale smoke
        (problems / name).touch()
    refused = []
    for number, (each, targets) in enumerate(together.items()):
        config = [f"data_folder={problems}" if c.startswith("data_folder=") else c for c in each.config]
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--nolock"]
        command += ["--profile", each.profile] if each.profile else ["--cores", "2"]
        command += ["--config", f"results={folder}/results-{number}", *config, "--", *sorted(targets)]
        env = {**os.environ, "PYTHONPATH": f"{root}/workflow"}
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=env, timeout=600, check=False)
        if done.returncode:
            refused.append(f"{shlex.join(command)}\n{(done.stdout + done.stderr).strip()[-1500:]}")
    return refused
