"""Files that are whole or absent: a temporary name and a rename for files and folders, canonical JSON, digests.

A temporary name lies beside its target, is random, and is made by its writer alone (O_EXCL): nobody can have put a link
where it will be. It says which process writes: what a killed one left is removed when the same target is written again,
and a folder that it had moved away is put back. One's own links are written through; other people's are refused.
"""

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.foreign import parse_json, read_text, typed

HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
"""Which machine a temporary name is of; not its name, which is nobody's business."""
ABANDONED = 7 * 24 * 3600
"""Seconds after which a temporary file of another machine, or of a process whose number is taken, is nobody's."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` only when the block ends without an error.

    Raises UserError where something else than a file, or somebody else's link, is in its place; an OSError of a full
    disk names `path`.
    """
    path = _target(Path(path), stat.S_ISREG, "file")
    _sweep(path)
    part = _beside(path, "part")
    with _naming(path, part):
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        try:
            yield part
            with open(part, "rb") as f:
                os.fsync(f.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it takes `path`'s place only when the block ends without an error.

    Where the file system can, the two folders change places at once; else a kill between two renames leaves the old
    folder under another name, and the next writer puts it back. Raises as `whole_file` does.
    """
    path = _target(Path(path), stat.S_ISDIR, "folder")
    _sweep(path)
    part = _beside(path, "part")
    with _naming(path, part):
        part.mkdir()
        try:
            yield part
            if not path.exists():
                os.replace(part, path)
            elif not _exchange(part, path):
                part = _replace_folder(path, part)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _target(path: Path, right_kind: Any, what: str) -> Path:
    """Where to write, its folder made: the path, or what one's own link there names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return path
    if stat.S_ISLNK(there.st_mode):
        if there.st_uid != os.geteuid():
            raise UserError("this is somebody else's link, and nothing is written through it", where=path)
        return _target(Path(os.path.realpath(path)), right_kind, what)
    if not right_kind(there.st_mode):
        raise UserError(f"a {what} is to be written here, and what is here is none", where=path, do="name another path")
    return path


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{HOST}-{os.getpid()}-{secrets.token_hex(6)}")


@contextmanager
def _naming(path: Path, part: Path) -> Iterator[None]:
    """Errors of the system that name no file, or the temporary one, name the target."""
    try:
        yield
    except OSError as e:
        if e.filename is None or e.filename in (str(part), part):
            e.filename = str(path)
        raise


def _sweep(path: Path) -> None:
    """Remove what killed writers of a target left; put a folder back that one had moved away."""
    for kind, left in _leftovers(path):
        if kind == "old" and not path.exists():
            with suppress(FileNotFoundError):
                os.replace(left, path)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _leftovers(path: Path) -> list[tuple[str, Path]]:
    """One's own temporary files of a target whose writers are gone, newest first: (part or old, path)."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(part|old)-([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{12}}")
    abandoned = []
    for entry in list(os.scandir(path.parent)):
        match = name.fullmatch(entry.name)
        if not match:
            continue
        with suppress(FileNotFoundError):  # another writer was faster
            there = entry.stat(follow_symlinks=False)
            old = time.time() - there.st_mtime > ABANDONED
            gone = match[2] == HOST and not _alive(int(match[3]))
            if there.st_uid == os.geteuid() and (gone or old):
                abandoned.append((-there.st_mtime, match[1], Path(entry.path)))
    return [(kind, left) for _, kind, left in sorted(abandoned)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places at once; False where kernel or file system can't."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_folder(path: Path, part: Path) -> Path:
    """Put a folder in another's place in two renames; returns where the old one is."""
    old = _beside(path, "old")
    os.replace(path, old)
    try:
        os.replace(part, path)
    except OSError:
        os.replace(old, path)
        raise
    return old


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and one trailing newline: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(canonical_json(value), encoding="utf-8")


def read_json(path: str | Path, kind: Any = None) -> Any:
    """Read JSON; a missing, broken or oversized file is a UserError that names it. kind: a type that it must be of."""
    value = parse_json(read_text(path), path)
    return value if kind is None else typed(value, kind, path)


def digest(value: Any) -> str:
    """12 hex digits that identify a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
