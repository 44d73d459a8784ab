"""Temporary folders on machines that others use, too.

A folder is made by a name that nobody can guess, and only its owner can look into it (0700): sockets and logs below it
are safe, whatever modes the programs that make them choose. What a killed process left is only touched where this user
owns it and nobody else could have written there; links are never followed.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.terminal import echo

PREFIX = "ngrpo-"
MOST_ROOT = 40  # characters of a root's path: programs put sockets some levels below it, whose paths have at most 107
_OWNER = "owner"  # a file that says whose temporary files these are


@dataclass(frozen=True)
class Scratch:
    """Somebody's temporary files: two folders, and a root by which both have short paths."""

    root: Path
    home: Path
    """Where the files lie: the root itself, or a folder to whose parts the root has links, where its path is long."""

    @property
    def ray(self) -> Path:
        """Ray's folder."""
        return self.root / "r"

    @property
    def temporary(self) -> Path:
        """For the temporary files of all else (TMPDIR)."""
        return self.root / "t"

    def made_by(self) -> str:
        """Shell commands that make the same folders on another node; they fail where somebody else was faster."""
        from shlex import quote

        root, home = quote(str(self.root)), quote(str(self.home))
        lines = [f"mkdir -p {quote(str(self.home.parent))}", f"mkdir -m 700 {home} {home}/r {home}/t"]
        if self.root != self.home:
            lines += [f"mkdir -m 700 {root}", f"ln -s {home}/r {home}/t {root}"]
        return " && ".join(lines)

    def remove(self) -> None:
        """Delete it with all that is in it."""
        for folder in {self.root, self.home}:
            shutil.rmtree(folder, ignore_errors=True)


def make_scratch(owner: str, say: str = "") -> Scratch:
    """A new one in TMPDIR; where that is too long for sockets below it, with short paths in /tmp, which is said.

    owner: whose it is, for `left_by`. Raises UserError where others could take the new folder's place.
    """
    home = _private_folder(Path(tempfile.gettempdir()), owner)
    root = home
    if len(str(home)) > MOST_ROOT:
        root = _private_folder(Path("/tmp"), owner)
        echo(f"{say}temporary files are in {home}; its path is too long for sockets: {root} leads there")
    for name in ("r", "t"):
        (home / name).mkdir(mode=0o700)
        if root != home:
            (root / name).symlink_to(home / name)
    return Scratch(root, home)


def left_by(owner: str) -> Iterator[Path]:
    """Folders of this owner in TMPDIR and /tmp that a killed process left: this user's own, private, no links."""
    for base in {Path(tempfile.gettempdir()), Path("/tmp")}:
        for folder in sorted(base.glob(f"{PREFIX}*")):
            if is_private(folder) and read_own(folder / _OWNER) == owner.encode():
                yield folder


def is_private(folder: Path) -> bool:
    """Whether this is a folder, no link, of this user, which nobody else can look or write into."""
    try:
        about = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077


def read_own(path: Path) -> bytes | None:
    """The content of a regular file of this user; None where it is somebody else's, a link, or not there."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        return file.read() if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() else None


def remove_shared_memory(pid: int, deadline: float = 0.0, folder: Path = Path("/dev/shm")) -> None:
    """Delete what a process that has ended left in shared memory: on a CPU torch hands weights on there by name, and
    nobody frees them once their keeper is killed. Nothing of a process that lives, or of another user.

    deadline: by time.monotonic(), until when a process that is ending is waited for.
    """
    while _lives(pid):
        if time.monotonic() >= deadline:
            return
        time.sleep(0.05)
    for path in folder.glob(f"torch_{pid}_*"):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid():
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that its parent hasn't looked at (a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _private_folder(base: Path, owner: str) -> Path:
    mode = base.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UserError(
            "others could put something in the place of temporary files there",
            where=f"TMPDIR={base}",
            do="set TMPDIR (environments.scratch) to a folder of your own",
        )
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # 0700, by a random name
    (folder / _OWNER).write_text(owner)
    return folder
