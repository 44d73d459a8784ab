"""Rows of a data set on the hub: from its cache, from the hub, or from the archive that stands in for it.

What was fetched first is written down beside the data set (commit, split and the rows' SHA-256), and later fetches of
the same commit, wherever from, must give the same rows.
"""

import hashlib
import math
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError
from ngrpo.files import canonical_json, read_json, write_json
from ngrpo.hub import fetch
from ngrpo.study.sources import HubDataset

WAIT = 60  # seconds for an archive's answer
FORMATS = {"parquet": "parquet", "jsonl": "json", "json": "json", "csv": "csv"}
"""Ending of an archive's file: how `datasets` calls its format."""


@dataclass(frozen=True)
class Archive:
    """What stands in for the hub, and what the rows must be."""

    mirror: str | None = None
    """URL of the rows as one file."""
    sha256: str | None = None
    """Of the canonical rows; None: not known before the first fetch."""


def hub_rows(source: HubDataset, record: Path, archive: Archive) -> tuple[list[dict[str, Any]], str]:
    """A data set's rows, and where they came from.

    record: the file that holds what was fetched first. Raises UserError where neither hub nor archive has the rows, and
    where they aren't those that were fetched first or that the archive names.
    """
    try:
        folder, commit = fetch("dataset", source.repo, source.revision)
        rows, origin = _loaded(source, str(folder), name=source.subset), f"{source.repo} at {commit}"
    except UserError as error:
        if archive.mirror is None:
            raise
        commit, origin = source.revision, f"{archive.mirror} (in place of {source.repo} at {source.revision})"
        rows = _from_mirror(source, archive.mirror, error)
    seen = hashlib.sha256(canonical_json(rows).encode()).hexdigest()
    _check(seen, {"repo": source.repo, "commit": commit, "subset": source.subset, "split": source.split},
           record, archive.sha256, origin)  # fmt: skip
    return rows, f"{origin}, split {source.split}, sha256 of rows {seen}"


def _check(seen: str, rows_of: dict[str, str | None], record: Path, known: str | None, origin: str) -> None:
    """Raise UserError where rows aren't the known ones; write down those that are the first."""
    first = read_json(record) if record.exists() else {}
    recorded = first.get("sha256") if {key: first.get(key) for key in rows_of} == rows_of else None
    for expected, where in ((known, "the data set's `sha256`"), (recorded, record)):
        if expected is not None and expected != seen:
            raise UserError(
                f"the rows' sha256 is {seen}, and should be {expected}: these are other rows",
                where=f"{origin}; {where}",
                do="find out which are right; to take these, remove what names the other hash",
            )
    if recorded is None:
        write_json(record, {**rows_of, "sha256": seen})


def _loaded(source: HubDataset, path: str, **how: Any) -> list[dict[str, Any]]:
    """The rows of a folder, or of a file in a format, as `datasets` reads them; null in place of NaN."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    with tempfile.TemporaryDirectory() as cache:
        try:
            loaded = load_dataset(path, split=source.split, cache_dir=cache, trust_remote_code=False, **how)
            rows = list(loaded)
        except (DatasetsError, ValueError, OSError, RuntimeError) as e:  # an unknown split or subset, unreadable files
            raise UserError(
                f"its rows can't be read: {e}", where=source.repo, do="correct the data set's `split` or `subset`"
            ) from None
    # canonical JSON, which is hashed, has no NaN
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]


def _from_mirror(source: HubDataset, mirror: str, error: UserError) -> list[dict[str, Any]]:
    """An archive's rows. error: why the hub didn't give them."""
    name = mirror.rstrip("/").rpartition("/")[2]
    ending = name.removesuffix(".gz").rpartition(".")[2]
    if ending not in FORMATS:
        raise UserError(
            f"an archive of rows can't be a .{ending} file", where=mirror, do=f"one of {', '.join(FORMATS)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        try:
            with urllib.request.urlopen(mirror, timeout=WAIT) as answer, open(file, "wb") as copy:
                shutil.copyfileobj(answer, copy)
        except (OSError, urllib.error.URLError, ValueError) as e:
            raise type(error)(
                f"neither hub nor archive gives the data set: {error.what}; {mirror}: {e}",
                where=source.repo,
                do=error.do,
            ) from None
        return _loaded(source.model_copy(update={"split": "train"}), FORMATS[ending], data_files={"train": str(file)})
