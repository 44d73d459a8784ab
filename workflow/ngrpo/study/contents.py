"""What a model folder of the user's holds, as a digest: another content at the same path is another model.

Names and sizes of the files that make a model, and their bytes: all of a small file's, of a large one's 64 blocks
evenly over its length. Weights that differ differ everywhere, and 15 GB aren't read whenever the study is. And what of
other people's training curves was imported.
"""

import hashlib
from fnmatch import fnmatch
from pathlib import Path

from ngrpo.hub import MODEL_FILES
from ngrpo.study.layout import Results

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


def imported_files(results: Results) -> list[Path]:
    """The training curves that were imported, and their cards: the page draws them."""
    files = results.imported("*")
    return sorted(path for each in (files.curves, files.card) for path in results.root.glob(results.relative(each)))
