"""What a stage's code is, for rerun decisions: Snakemake doesn't see edits to imported Python.

Cheap stages rerun when their sources change (a fingerprint); expensive ones only when their version number is raised,
by whoever changes what they compute. Reports mark results that older code made.
"""

import hashlib
from pathlib import Path

VERSIONS = {"model": 1, "neighbors": 1, "train": 1, "sample": 1, "diagnostics": 1}


def fingerprint(*packages: str) -> str:
    """12 hex digits of the sources of these subpackages of ngrpo."""
    root = Path(__file__).resolve().parents[1]
    seen = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                seen.update(f"{path.relative_to(root)}\n".encode())
                seen.update(path.read_bytes())
    return seen.hexdigest()[:12]
