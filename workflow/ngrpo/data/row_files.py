"""Rows as a file holds them: .jsonl and .json (either of them also as .gz), .parquet.

Numbers keep what the file says: JSON's are read as decimals (0.10 isn't 0.1, 5000 digits are 5000 digits), columns of
32-bit floats by their shortest decimals. What a file unpacks to is bounded by its size, so that a small file can't fill
the memory.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from ngrpo.errors import UserError, file_error
from ngrpo.foreign import decoded, json_lines, parse_json, read_parquet, regular_size

LARGEST, RATIO = 64 * 2**20, 100  # bytes that any file may unpack to; times its size that a larger one may
PACKED = (".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar")
ALSO_PACKED = (".jsonl.gz", ".json.gz")
MAGIC = {b"\x1f\x8b": "gzip", b"PAR1": "parquet", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .json (a list, or one under "data") or .parquet file, as they are; .gz of the first two.

    JSON's numbers are Decimals. Raises UserError for a file that isn't there, isn't whole, isn't rows or unpacks to
    more than it may.
    """
    regular_size(path)
    rows = _reader(path)(path)
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise UserError("not a list of rows", where=path)
    return rows


def _reader(path: Path) -> Callable[[Path], Any]:
    """How a file of this name is read. Raises UserError for names that say another format, or none."""
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _lines
    if name.endswith((".json", ".json.gz")):
        return _json
    if name.endswith((*PACKED, ".gz")):
        raise UserError(
            f"can't read {path.suffix} files", where=path, do="unpack it (of packed files only .jsonl.gz and .json.gz)"
        )
    raise UserError(f"can't read {path.suffix or 'such'} files", where=path, do="use .jsonl, .json or .parquet")


def _text(path: Path) -> str:
    """A file's text; a byte order mark isn't part of it."""
    try:
        data = _unpacked(path) if path.name.lower().endswith(ALSO_PACKED) else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"not readable: {e}", where=path, do="fetch or export it again") from None
    except OSError as e:
        raise file_error(e, path) from None
    other = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
    if other:
        raise UserError(f"this is {other}, whatever its name says", where=path, do="rename or unpack it")
    return decoded(data, path)


def _unpacked(path: Path) -> bytes:
    """What a .gz file holds, if that isn't more than it may."""
    most = max(LARGEST, RATIO * regular_size(path))
    with gzip.open(path) as packed:
        data = packed.read(most + 1)
    if len(data) > most:
        what = f"it unpacks to more than {most / 2**20:.0f} MB, {RATIO} times its size"
        raise UserError(what, where=path, do="if this is what it should hold, unpack it: .jsonl isn't bounded")
    return data


def _lines(path: Path) -> list[Any]:
    return [row for _, row in json_lines(_text(path), path, decimals=True, any_text=True)]


def _json(path: Path) -> Any:
    rows = parse_json(_text(path), path, decimals=True, any_text=True)
    return rows.get("data", rows) if isinstance(rows, dict) else rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa

    table = read_parquet(path, make="fetch or export it again")
    short = [f.name for f in table.schema if pa.types.is_float32(f.type) or pa.types.is_float16(f.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row.update({name: _shortest(row[name]) for name in short})
    return rows


def _shortest(value: float | None) -> float | Decimal | None:
    """A 32-bit float by the shortest decimal that is it: 0.1, not 0.10000000149011612."""
    import numpy as np

    if value is None or not math.isfinite(value):
        return value
    return Decimal(str(np.float32(value)))
