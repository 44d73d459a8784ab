"""Rows as a file holds them: .jsonl and .json (either of them also as .gz), .parquet.

Numbers keep what the file says: JSON's are read as decimals (0.10 isn't 0.1, 5000 digits are 5000 digits), columns of
32-bit floats by their shortest decimals. What a file unpacks to is bounded by its size, so that a small file can't fill
the memory.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ngrpo.errors import UserError

LARGEST, RATIO = 64 * 2**20, 100  # bytes that any file may unpack to; times its size that a larger one may
BATCH = 256  # rows of a parquet file that are unpacked before they are counted
PACKED = (".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".rar")
ALSO_PACKED = (".jsonl.gz", ".json.gz")
MAGIC = {b"\x1f\x8b": "gzip", b"PAR1": "parquet", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd"}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .json (a list, or one under "data") or .parquet file, as they are; .gz of the first two.

    JSON's numbers are Decimals. Raises UserError for a file that isn't there, isn't whole, isn't rows or unpacks to
    more than it may.
    """
    if path.is_dir():
        raise UserError("this is a folder, not a file of rows", where=path, do="name a file in it")
    if not path.is_file():
        raise UserError("there is no such file" if not path.exists() else "this isn't a regular file", where=path)
    read = _reader(path)
    try:
        rows = read(path)
    except RecursionError:
        raise UserError("not readable: values nested too deeply", where=path, do="fetch or export it again") from None
    except (pa.ArrowException, json.JSONDecodeError, OSError, EOFError, zlib.error) as e:
        raise UserError(f"not readable: {e}", where=path, do="fetch or export it again") from None
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


def _limit(path: Path) -> int:
    """Bytes that a file may unpack to."""
    return max(LARGEST, RATIO * path.stat().st_size)


def _too_large(path: Path) -> UserError:
    return UserError(
        f"it unpacks to more than {_limit(path) / 2**20:.0f} MB, {RATIO} times its size",
        where=path,
        do="if this is what it should hold, unpack it: .jsonl isn't bounded",
    )


def _text(path: Path) -> str:
    """A file's text; a byte order mark isn't part of it."""
    data = path.read_bytes()
    if path.name.lower().endswith(ALSO_PACKED):
        with gzip.open(path) as unpacked:
            data = unpacked.read(_limit(path) + 1)
        if len(data) > _limit(path):
            raise _too_large(path)
    other = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
    if other:
        raise UserError(f"this is {other}, whatever its name says", where=path, do="rename or unpack it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError(f"not readable: it isn't UTF-8 text: {e}", where=path, do="export it as UTF-8") from None


def _parsed(text: str, where: object) -> Any:
    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as e:
        raise UserError(f"not readable as JSON: {e}", where=where, do="fetch or export it again") from None
    except RecursionError:
        raise UserError("not readable as JSON: values nested too deeply", where=where) from None
    except (InvalidOperation, ValueError) as e:
        raise UserError(f"not readable as JSON: a number is out of range: {e}", where=where) from None


def _lines(path: Path) -> list[Any]:
    # not splitlines(): JSON strings may hold U+2028 and other separators as they are
    lines = enumerate(_text(path).split("\n"), 1)
    return [_parsed(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _json(path: Path) -> Any:
    rows = _parsed(_text(path), path)
    return rows.get("data", rows) if isinstance(rows, dict) else rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    size, limit = 0, _limit(path)
    with pq.ParquetFile(path) as file:
        short = [f.name for f in file.schema_arrow if pa.types.is_float32(f.type) or pa.types.is_float16(f.type)]
        for batch in file.iter_batches(batch_size=BATCH):
            size += batch.nbytes
            if size > limit:
                raise _too_large(path)
            rows += batch.to_pylist()
    for row in rows:
        row.update({name: _shortest(row[name]) for name in short})
    return rows


def _shortest(value: float | None) -> float | Decimal | None:
    """A 32-bit float by the shortest decimal that is it: 0.1, not 0.10000000149011612."""
    import numpy as np

    if value is None or not math.isfinite(value):
        return value
    return Decimal(str(np.float32(value)))
