"""What a stage's code is, for rerun decisions: Snakemake doesn't see edits to imported Python.

Cheap stages rerun when their sources change (a fingerprint); expensive ones only when their version number is raised,
by whoever changes what they compute. Reports mark results that older code made.
"""

import hashlib
from pathlib import Path

VERSIONS = {"model": 1, "policy": 1, "neighbors": 1, "train": 1, "sample": 1, "predictions": 1, "diagnostics": 3}

_PAGE = ("audit", "claims", "formatting", "grades", "report", "statistics", "study")
CODE: dict[str, tuple[str, ...]] = {
    "dataset": ("data", "grades", "grading"),
    "training_data": ("data", "grades", "grading", "stages.training_data"),
    "grade": ("grades", "grading"),
    "analyze": ("audit", "claims", "formatting", "grades", "report", "statistics", "study"),
    "notebook": _PAGE,
    "report": _PAGE,
}
"""Cheap stage: the packages and modules of ngrpo that its result is computed with. A test holds this to the imports."""

NEUTRAL = ("errors", "files", "foreign", "hub", "progress", "terminal")
"""In no fingerprint: messages, whole files, their reading and downloads, which change no result."""

BY_SPEC = ("dataset", "training_data")
"""Stages that take from `ngrpo.study` only what stands in their spec file, which is an input of its own: an edit there
fetches no data anew, and so retrains nothing."""


def code_of(stage: str) -> str:
    """The fingerprint of a cheap stage's code."""
    return fingerprint(*CODE[stage])


def fingerprint(*parts: str) -> str:
    """12 hex digits of the sources of these packages and modules (dotted) of ngrpo."""
    root = Path(__file__).resolve().parents[1]
    seen = hashlib.sha256()
    for part in parts:
        folder = root.joinpath(*part.split("."))
        files = sorted(folder.rglob("*")) if folder.is_dir() else [folder.with_suffix(".py")]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                seen.update(f"{path.relative_to(root)}\n".encode())
                seen.update(path.read_bytes())
    return seen.hexdigest()[:12]
