"""What a model folder of the user's holds, as a digest: another content at the same path is another model.

Names and sizes of the files that make a model, and their bytes: all of a small file's, of a large one's 64 blocks
evenly over its length. Weights that differ differ everywhere, and 15 GB aren't read whenever the study is. And what of
other people's training curves was imported.

A policy or predictions from elsewhere are what they are by every byte (`Contents`); what was read once isn't read again
until a file's size or time is another.
"""

import hashlib
import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from ngrpo.errors import UserError
from ngrpo.files import canonical_json, file_sha256, read_json, write_json
from ngrpo.hub import MODEL_FILES
from ngrpo.study.layout import MODEL_CARD, Results

BLOCK, BLOCKS = 2**16, 64


def model_files(folder: Path) -> list[Path]:
    """The files that make a model, by name."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and any(fnmatch(path.name, p) for p in MODEL_FILES)
    )


def content_digest(folder: Path) -> str:
    """64 hex digits; the same for a copy wherever it lies."""
    seen = hashlib.sha256()
    for path in model_files(folder):
        size = path.stat().st_size
        seen.update(f"{path.name}\n{size}\n".encode())
        with open(path, "rb") as file:
            if size <= BLOCK * BLOCKS:
                seen.update(file.read())
                continue
            for number in range(BLOCKS):
                file.seek((size - BLOCK) * number // (BLOCKS - 1))
                seen.update(file.read(BLOCK))
    return seen.hexdigest()


def policy_digest(folder: Path) -> str:
    """64 hex digits of the SHA-256 of every file that makes a model, or an adapter, by name."""
    return _joined({path.name: file_sha256(path) for path in policy_files(folder)})


def policy_files(folder: Path) -> list[Path]:
    """The files that make a policy; the card that this workflow puts beside them is none."""
    return [path for path in model_files(folder) if path.name != MODEL_CARD]


def _joined(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(canonical_json(dict(parts)).encode()).hexdigest()


class Contents:
    """What folders and files of the user's hold, as SHA-256.

    known: what is taken as it is, by path: a job goes by what was there when it was submitted. results: where digests
    are kept, with sizes and times of what was read; one whose files are gone since is taken from there: what was copied
    stays.
    """

    def __init__(self, known: Mapping[str, str], results: Results | None = None):
        self.known = dict(known)
        self._path = results.contents if results else None
        self._read: dict[str, dict[str, str]] = {}
        if self._path and self._path.exists():
            self._read = read_json(self._path, dict[str, dict[str, str]])

    def of(self, path: str, where: object) -> str:
        """A folder's or file's digest. Raises UserError where there is neither it nor a record of it."""
        if path not in self.known:
            self.known[path] = self._look(path, where)
        return self.known[path]

    def _look(self, path: str, where: object) -> str:
        place, before = Path(path).expanduser(), self._read.get(path, {})
        if not place.exists():
            if before:
                return before["sha256"]
            raise UserError(f"there is nothing at '{place}'", where=where, do="correct the path")
        files = policy_files(place) if place.is_dir() else [place]
        if not files:
            raise UserError("the folder holds no files of a model", where=place, do="name a Hugging Face model folder")
        stats = [(file.name, file.stat()) for file in files]
        stamp = _joined({name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats})
        if before.get("stamp") != stamp:
            before = {"stamp": stamp, "sha256": policy_digest(place) if place.is_dir() else file_sha256(place)}
            self._keep(path, before)
        return before["sha256"]

    def _keep(self, path: str, entry: dict[str, str]) -> None:
        self._read[path] = entry
        if self._path and os.access(self._path.parent, os.W_OK):
            write_json(self._path, self._read)


def imported_files(results: Results) -> list[Path]:
    """The training curves that were imported, and their cards: the page draws them."""
    files = results.imported("*")
    return sorted(path for each in (files.curves, files.card) for path in results.root.glob(results.relative(each)))
