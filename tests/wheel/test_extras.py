"""The package's extras from a built wheel, each in a fresh environment: what docs/in-your-own-code.md promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from own_code import RUN, STEPS, TABLE, figures, follow, follow_server, make_home

pytestmark = pytest.mark.train
ROOT = Path(__file__).resolve().parents[2]
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, *PIP, "wheel", "--no-deps", "-w", out, ROOT], check=True)
    (made,) = out.glob("*.whl")
    return made


def environment(wheel: Path, extra: str, folder: Path) -> Path:
    """The bin folder of a new environment with the wheel and one of its extras."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", *PIP, "install", f"{wheel}[{extra}]"], check=True)
    return folder / "bin"


def test_grading_and_comparing_need_the_extra_analysis_alone(wheel: Path, tmp_path: Path) -> None:
    programs = environment(wheel, "analysis", tmp_path / "environment")
    for name, right in (("yours", 6), ("theirs", 2)):
        rows = [
            {"id": str(i), "response": rf"So \boxed{{{i if i < right else -1}}}", "answer": str(i), "kind": "math"}
            for i in range(8)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments: str) -> str:
        command = [programs / "ngrpo", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "75.0" in run("grade", "yours.jsonl", "--out", "yours.graded.jsonl")
    assert "25.0" in run("grade", "theirs.jsonl", "--out", "theirs.graded.jsonl")
    compared = run("diff", "yours.graded.jsonl", "theirs.graded.jsonl")
    assert "50.0" in compared


def test_the_verl_lines_need_the_extra_verl_alone(wheel: Path, tmp_path: Path) -> None:
    programs = environment(wheel, "verl", tmp_path / "environment")
    (tmp_path / "home").mkdir()
    done = follow(make_home(tmp_path / "home"), TABLE + RUN, str(programs / "python"), "")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(figures(done, "parity/max")) == STEPS
    assert max(figures(done, "parity/max")) <= 1e-4


def test_the_server_lines_need_the_extra_sglang_alone(wheel: Path, tmp_path: Path) -> None:
    programs = environment(wheel, "sglang", tmp_path / "environment")
    (tmp_path / "home").mkdir()
    assert "mixed steps:" in follow_server(make_home(tmp_path / "home"), programs, "")
