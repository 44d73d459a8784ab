"""Temporary folders that other users of the machine can neither read nor put theirs in place of."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from ngrpo.errors import UserError
from ngrpo.scratch import MOST_ROOT, is_private, left_by, make_scratch, read_own, remove_shared_memory

SOMEBODY = 65534  # nobody's user id


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch):
    """A short TMPDIR of its own."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_nobody_else_can_look_into_it(base: Path) -> None:
    scratch = make_scratch("run")
    assert scratch.root == scratch.home
    assert is_private(scratch.home)
    scratch.ray.chmod(0o777)  # as Ray does
    if os.geteuid() == 0:
        look = subprocess.run(["ls", str(scratch.ray)], user=SOMEBODY, capture_output=True, text=True, check=False)
        assert "Permission denied" in look.stderr
    scratch.remove()
    assert list(base.iterdir()) == []


def test_a_long_path_gets_a_short_one_that_sockets_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / "local-scratch" / "job.1234567"
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    scratch = make_scratch("run", "[train] ")
    assert scratch.home.parent == long
    assert scratch.root.parent == Path("/tmp")
    assert len(str(scratch.root)) <= MOST_ROOT
    assert "its path is too long for sockets" in capsys.readouterr().out
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(scratch.temporary / ("s" * 50)))
        assert (scratch.home / "t" / ("s" * 50)).is_socket()
    assert set(left_by("run")) == {scratch.root, scratch.home}
    scratch.remove()
    assert list(left_by("run")) == []
    made = subprocess.run(["sh", "-c", f"{scratch.made_by()} && {scratch.made_by()}"], capture_output=True, check=False)
    assert made.returncode != 0  # the second time they are there, as if somebody else had made them
    assert is_private(scratch.root)
    assert (scratch.ray.resolve(), is_private(scratch.home)) == (scratch.home / "r", True)
    scratch.remove()


def test_only_what_is_ours_alone_is_taken_for_a_dead_process_s(base: Path) -> None:
    mine = make_scratch("run").home
    make_scratch("another run")
    for name, spoil in {"shared": lambda f: f.chmod(0o770), "open": lambda f: f.chmod(0o777)}.items():
        folder = base / f"ngrpo-{name}"
        folder.mkdir(mode=0o700)
        (folder / "owner").write_text("run")
        spoil(folder)
    (base / "ngrpo-link").symlink_to(mine)
    (base / "ngrpo-file").write_text("run")
    if os.geteuid() == 0:
        theirs = base / "ngrpo-theirs"
        theirs.mkdir(mode=0o700)
        (theirs / "owner").write_text("run")
        os.chown(theirs, SOMEBODY, SOMEBODY)
    assert list(left_by("run")) == [mine]


def test_no_link_and_no_file_of_somebody_else_is_read(base: Path) -> None:
    (base / "secret").write_text("secret")
    (base / "link").symlink_to(base / "secret")
    os.mkfifo(base / "pipe")
    assert read_own(base / "secret") == b"secret"
    assert [read_own(base / name) for name in ("link", "pipe", "absent")] == [None, None, None]
    if os.geteuid() == 0:
        os.chown(base / "secret", SOMEBODY, SOMEBODY)
        assert read_own(base / "secret") is None


def test_a_folder_in_which_others_can_rename_is_refused(base: Path) -> None:
    base.chmod(0o777)
    with pytest.raises(UserError, match="in the place of temporary files"):
        make_scratch("run")
    base.chmod(0o1777)
    make_scratch("run").remove()


def test_shared_memory_of_an_ended_process_is_freed_and_nobody_elses(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = [f"torch_{ended.pid}_1_0", f"torch_{ended.pid}_2_17", f"torch_{ended.pid}0_1_0", f"torch_{os.getpid()}_1_0"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / f"torch_{ended.pid}_3_0").symlink_to(tmp_path / names[0])
    for pid in (ended.pid, os.getpid()):
        remove_shared_memory(pid, folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[2:], f"torch_{ended.pid}_3_0"])


@pytest.mark.parametrize("reaped", [True, False])
def test_shared_memory_of_a_process_that_is_ending_is_freed_once_it_has(tmp_path: Path, reaped: bool) -> None:
    ending = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    left = tmp_path / f"torch_{ending.pid}_1_0"
    left.touch()
    remove_shared_memory(ending.pid, folder=tmp_path)
    assert left.exists(), "a control: without waiting nothing is freed"
    if reaped:
        threading.Thread(target=ending.wait).start()
    remove_shared_memory(ending.pid, time.monotonic() + 30, tmp_path)
    assert not left.exists()
    ending.wait()
