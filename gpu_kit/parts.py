"""Archives in small parts, and back: each part's SHA-256 is in the manifest. Standard library alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from io import RawIOBase
from pathlib import Path

MANIFEST = "manifest.json"
FORMAT = "ngrpo-gpu-kit"
LARGEST = 60 * 2**20
"""Bytes of a part: some lent machines take 64 MiB at a time."""
_BLOCK = 2**20


class KitError(Exception):
    """What is wrong with a kit or the node, in words for who runs it."""


def sha256(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(archive: Path, folder: Path, largest: int = LARGEST) -> list[dict]:
    """Cut a file into parts in `folder`, and delete it; what the manifest says of each: {name, bytes, sha256}."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = []
    with archive.open("rb") as whole:
        while block := whole.read(min(_BLOCK, largest)):
            part = folder / f"{archive.name}.{len(facts) + 1:02d}"
            size = 0
            with part.open("wb") as out:
                while block:
                    out.write(block)
                    size += len(block)
                    block = whole.read(min(_BLOCK, largest - size))
            facts.append({"name": part.name, "bytes": size, "sha256": sha256(part)})
    archive.unlink()
    return facts


def read_manifest(kit: Path) -> dict:
    """A kit's manifest. Raises KitError where there is none."""
    try:
        manifest = json.loads((kit / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise KeyError
    except (OSError, ValueError, KeyError, TypeError):
        raise KitError(f"{kit} is no kit: its {MANIFEST} is missing or damaged; copy the whole folder") from None
    return manifest


def collect(facts: Sequence[dict], kit: Path, kept: Path) -> list[Path]:
    """The parts, each whole, from the kit's folder or from those that an earlier call brought.

    Where some are missing, those that are here are kept in `kept`, and KitError names the others: so parts can come one
    at a time.
    """
    found, missing = [], []
    for part in facts:
        places = [p for p in (kit / "parts" / part["name"], kept / part["name"]) if p.is_file()]
        good = next((p for p in places if p.stat().st_size == part["bytes"] and sha256(p) == part["sha256"]), None)
        if places and good is None:
            raise KitError(f"{places[0]} is damaged: its SHA-256 isn't the manifest's; copy it again")
        if good is None:
            missing.append(part)
        else:
            found.append(good)
    if not missing:
        return found
    kept.mkdir(parents=True, exist_ok=True)
    for path in found:
        if path.parent != kept:
            shutil.copyfile(path, kept / f"{path.name}.new")
            (kept / f"{path.name}.new").replace(kept / path.name)
    names = ", ".join(f"{part['name']} ({part['bytes'] / 2**20:.0f} MiB)" for part in missing)
    raise KitError(
        f"{len(missing)} of {len(facts)} parts aren't here yet: {names}. Put them into {kit / 'parts'} and run it "
        f"again; those that came are kept in {kept}"
    )


class _Joined(RawIOBase):
    """Parts, read as one file."""

    def __init__(self, parts: Sequence[Path]):
        self._blocks = self._read_all(parts)
        self._rest = b""

    @staticmethod
    def _read_all(parts: Sequence[Path]) -> Iterator[bytes]:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield block

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end."""
        taken = [self._rest]
        have = len(self._rest)
        while size < 0 or have < size:
            block = next(self._blocks, b"")
            if not block:
                break
            taken.append(block)
            have += len(block)
        data = b"".join(taken)
        cut = len(data) if size < 0 else size
        self._rest = data[cut:]
        return data[:cut]


def extract(parts: Sequence[Path], target: Path) -> None:
    """Unpack a .tar.xz in parts as the folder `target`, whole or not at all."""
    temporary = target.with_name(f"{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with tarfile.open(fileobj=_Joined(parts), mode="r|xz") as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(temporary, filter="data")
        else:
            _extract_inside(archive, temporary)
    temporary.replace(target)


def _extract_inside(archive: tarfile.TarFile, folder: Path) -> None:
    """What the filter does that Python has from 3.11.4 on: nothing but files, folders and links that stay inside."""
    for member in archive:
        place = os.path.normpath(member.name)
        leads = os.path.normpath(os.path.join(os.path.dirname(place), member.linkname)) if member.issym() else place
        inside = not any(os.path.isabs(path) or path.split(os.sep)[0] == ".." for path in (place, leads))
        if not inside or not (member.isreg() or member.isdir() or member.issym()):
            raise KitError(f"{member.name} in the archive would lie, or lead, outside of its folder")
        archive.extract(member, folder)
