"""Files are whole or absent, whoever else writes beside them and whenever a writer is killed."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ngrpo import files
from ngrpo.errors import UserError
from ngrpo.files import whole_file, whole_folder

Writer = Callable[[Path], AbstractContextManager[Path]]
KILLED = """
import os, signal, sys
from pathlib import Path
from ngrpo import files
if sys.argv[3] == "no exchange":
    files._exchange = lambda *_: False
    replace = os.replace
    def one_rename(a, b):
        replace(a, b)
        os.kill(os.getpid(), signal.SIGKILL)
    os.replace = one_rename
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as part:
    (part / "new" if part.is_dir() else part).write_text("new")
    if sys.argv[3] == "in the middle":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(writer: str, path: Path, when: str) -> None:
    """Write a file or folder in a process that kills itself on the way."""
    ended = subprocess.run([sys.executable, "-c", KILLED, writer, str(path), when], check=False)
    assert ended.returncode == -signal.SIGKILL


def write(writer: Writer, path: Path, text: str) -> None:
    with writer(path) as part:
        (part / "new" if part.is_dir() else part).write_text(text)


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_link_where_a_temporary_name_might_be_is_never_followed(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0" * 12)  # as if it could be guessed
    for kind in ("part", "old"):
        (tmp_path / f".out.{kind}-{files.HOST}-{os.getpid()}-{'0' * 12}").symlink_to(victim)
    (tmp_path / f".out.part-{os.getpid()}").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write(writer, tmp_path / "out", "other")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_names_can_not_be_guessed_and_say_nothing_of_the_machine(tmp_path: Path) -> None:
    with whole_file(tmp_path / "out") as one, whole_file(tmp_path / "out") as other:
        assert one != other
        assert os.uname().nodename not in one.name.split("-")


def test_ones_own_link_is_written_through_and_nothing_else_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "scratch" / "real")
    write(whole_file, tmp_path / "out", "text")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "scratch" / "real").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for writer, name in ((whole_file, "pipe"), (whole_file, "folder"), (whole_folder, "file"), (whole_folder, "pipe")):
        with pytest.raises(UserError, match="what is here is none"):
            write(writer, tmp_path / name, "text")
    me = os.getuid()
    monkeypatch.setattr(files.os, "geteuid", lambda: me + 1)
    with pytest.raises(UserError, match="somebody else's link"):
        write(whole_file, tmp_path / "out", "other")


@pytest.mark.parametrize("when", ["in the middle", "no exchange"])
def test_a_killed_write_leaves_nothing_for_ever_and_loses_nothing(when: str, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    write(whole_folder, folder, "old")
    write(whole_file, file, "old")
    killed("whole_folder", folder, when)
    killed("whole_file", file, "in the middle")
    assert file.read_text() == "old"
    assert len(list(tmp_path.glob(".*"))) > 1
    with whole_folder(folder) as part:
        assert (folder / "new").read_text() == "old", "what was there before is back as soon as somebody writes"
        (part / "new").write_text("newer")
    write(whole_file, file, "newer")
    assert (folder / "new").read_text() == file.read_text() == "newer"
    assert list(tmp_path.glob(".*")) == []


def test_what_another_writer_is_at_stays(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        at_work = tmp_path / f".out.part-{files.HOST}-{other.pid}-{'1' * 12}"
        elsewhere = tmp_path / f".out.part-{'0' * 8}-1-{'2' * 12}"
        forgotten = tmp_path / f".out.part-{'0' * 8}-1-{'3' * 12}"
        for path in (at_work, elsewhere, forgotten):
            path.touch()
        long_ago = time.time() - files.ABANDONED - 60
        os.utime(forgotten, (long_ago, long_ago))
        write(whole_file, tmp_path / "out", "text")
        assert sorted(tmp_path.glob(".*")) == sorted([at_work, elsewhere])
    finally:
        other.kill()
        other.wait()


def test_a_folder_is_there_at_every_moment_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(whole_folder, tmp_path / "out", "old")
    if not files._exchange(tmp_path / "out", tmp_path / "out"):
        pytest.skip("this file system can't exchange folders")
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("two renames leave a moment without the folder"))
    write(whole_folder, tmp_path / "out", "new")
    assert (tmp_path / "out" / "new").read_text() == "new"


@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(writer: Writer, tmp_path: Path) -> None:
    write(writer, tmp_path / "out", "old")

    def full() -> None:
        with writer(tmp_path / "out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as raised:
        full()
    assert raised.value.filename == str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_new_files_have_the_permissions_that_the_user_gives_all_files(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "plain folder").mkdir()
    write(whole_file, tmp_path / "out", "text")
    write(whole_folder, tmp_path / "folder", "text")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain folder").stat().st_mode
