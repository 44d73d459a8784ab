"""The one way to open files of others' making: a study that was handed on, a crate, a data set, a configuration.

Nothing is believed: a file's kind and size are looked at before it is read, text must be UTF-8, JSON of bounded depth,
a parquet file of the expected columns and of a size that fits its bytes. What doesn't hold is a UserError that names
the file and the line, column or key; a value in a message is cut (`ngrpo.terminal.quoted`).
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngrpo.errors import UserError, file_error, nearest_name
from ngrpo.terminal import quoted

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MOST_TEXT = 2**30
"""Bytes of a text file that is read as a whole."""
LONGEST_LINE = 2**28
"""Bytes of a line of JSON Lines."""
PLAIN_DATA, LARGEST_EXPANSION = 2**28, 100
"""A parquet file may unpack to so many bytes; a larger one to so many times its own size."""
MOST_ROWS = 10**8
BATCH, NESTED_BATCH = 2**14, 2**8
"""Rows that are unpacked at a time; fewer where a column holds lists or structs, whose size only shows unpacked."""


def regular_size(path: str | Path) -> int:
    """A file's bytes. Raises UserError where it is missing, can't be looked at, or is no file (a folder, a pipe)."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        raise UserError("a file that this step needs isn't there", where=path) from None
    except OSError as e:
        raise file_error(e, path) from None
    if stat.S_ISDIR(there.st_mode):
        raise UserError("this is a folder, not a file", where=path)
    if not stat.S_ISREG(there.st_mode):
        raise UserError("this is no regular file (a pipe, a device)", where=path, do="save it to a file first")
    return there.st_size


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """A UTF-8 text file as a whole, a byte order mark left out. most: bytes that it may have."""
    size = regular_size(path)
    if size > most:
        raise UserError(f"{size:,} bytes are more than such a file has (at most {most:,})", where=path)
    try:
        content = Path(path).read_bytes()
    except OSError as e:
        raise file_error(e, path) from None
    return decoded(content, path)


def decoded(content: bytes, path: object, line: int = 1) -> str:
    """A file's bytes as text, a byte order mark left out. line: the number of the first line in it."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        line += content.count(b"\n", 0, e.start)
        what = f"not UTF-8 text (byte 0x{content[e.start]:02x})"
        raise UserError(what, where=f"{path}, line {line}", do="save it as UTF-8") from None


class _GivenTwice(Exception):
    """A key that an object has twice: JSON leaves open which counts."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _GivenTwice(next(name for name in names if names.count(name) > 1))
    return value


def parse_json(text: str, where: object, *, decimals: bool = False, any_text: bool = False) -> Any:
    """A JSON value; whatever is wrong with it is a UserError.

    decimals: numbers as Decimals, which keep every digit that is written (0.10, a number of 5000 digits). any_text:
    text that UTF-8 can't hold (half of a surrogate pair), which a model may write, is no mistake.
    """
    try:
        numbers: dict[str, Any] = {"parse_float": Decimal, "parse_int": Decimal} if decimals else {}
        value = json.loads(text, object_pairs_hook=_once_each, **numbers)
        if not any_text and ("\\ud" in text or "\\uD" in text):
            json.dumps(value, ensure_ascii=False).encode()
    except _GivenTwice as e:
        raise UserError(f"the key '{quoted(e)}' is given twice", where=where, do="keep one of them") from None
    except json.JSONDecodeError as e:
        at = f"line {e.lineno}, column {e.colno}" if e.lineno > 1 else f"column {e.colno}"
        raise UserError(f"not readable as JSON: {e.msg} ({at})", where=where) from None
    except RecursionError:
        raise UserError("nested too deep to be read", where=where) from None
    except UnicodeEncodeError:
        raise UserError("text with half of a surrogate pair, which isn't Unicode", where=where) from None
    except InvalidOperation:
        raise UserError("not readable as JSON: a number is out of range", where=where) from None
    except ValueError as e:  # a number of more digits than Python reads
        raise UserError(f"not readable as JSON: {quoted(e)}", where=where) from None
    return value


def json_lines(
    text: str, where: object, *, decimals: bool = False, any_text: bool = False
) -> Iterator[tuple[str, Any]]:
    """(file and line, value) of each line of JSON Lines that isn't blank."""
    # not splitlines(): JSON strings may hold U+2028 and other separators as they are
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            at = f"{where}, line {number}"
            yield at, parse_json(line, at, decimals=decimals, any_text=any_text)


def stream_json_lines(path: str | Path) -> Iterator[tuple[str, Any]]:
    """As `json_lines`, of any text, for a file of any size, or a pipe: one line at a time is in memory."""
    try:
        with open(path, "rb") as file:
            kind = os.fstat(file.fileno()).st_mode
            if stat.S_ISBLK(kind) or (stat.S_ISCHR(kind) and not file.isatty()):
                raise UserError("this is a device, not a file", where=path, do="save it to a file first")
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    what = f"a line of more than {LONGEST_LINE:,} bytes"
                    raise UserError(what, where=f"{path}, line {number}", do="write one row a line")
                if line.strip():
                    at = f"{path}, line {number}"
                    yield at, parse_json(decoded(line, path, number), at, any_text=True)
    except OSError as e:
        raise file_error(e, path) from None


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def typed(value: Any, kind: Any, where: object) -> Any:
    """A value as this type (anything that pydantic knows); else a UserError that names the key."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = "" if first["type"] == "missing" else f": {quoted_value(first['input'])}"
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}{got}"
        raise UserError(
            f"not what this file holds: {message}",
            where=f"{where}: {quoted(key)}" if key else where,
            do="make it again, or restore it",
        ) from None


def quoted_value(value: Any) -> str:
    """A parsed value as a message shows it; of a nested one only its kind and size, which is all that is looked at."""
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return quoted(repr(value[:400] if isinstance(value, str | bytes) else value))


# --- parquet ---


def read_parquet(
    path: str | Path,
    columns: "pa.Schema | Sequence[str] | None" = None,
    *,
    make: str | None = None,
    exact: bool = False,
) -> "pa.Table":
    """A parquet file's table.

    columns: a schema whose columns must be there with values of their types (further columns are read, too, unless
    `exact`), or names of the columns to read; None: all of them. make: the command that makes the file, for errors.
    Raises UserError for a file that isn't whole, lacks a column, holds another type or a null where none may be, or
    unpacks to far more than its size.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    regular_size(path)
    try:
        with pq.ParquetFile(path) as file:
            names = _names(file, columns, exact, path, make)
            _small_enough(file, path)
            texts = [
                c.path for c in map(file.schema.column, range(len(file.schema))) if c.physical_type == "BYTE_ARRAY"
            ]
        with pq.ParquetFile(path, read_dictionary=[name for name in texts if name in names]) as file:
            table = _unpacked(file, names, path)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as e:
        # ArrowException: spoiled bytes; OSError, ValueError: bad thrift, UTF-8, nesting
        if isinstance(e, OSError) and e.errno is not None:
            raise file_error(e, path) from None
        raise UserError(f"not a readable parquet file ({quoted(str(e).split('.')[0])})", where=path, do=make) from None
    return _as_schema(table, columns, path, make) if isinstance(columns, pa.Schema) else table


def parquet_rows(path: str | Path) -> int:
    """How many rows a parquet file says that it has. Raises UserError as `read_parquet` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    regular_size(path)
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"not a readable parquet file ({quoted(str(e).split('.')[0])})", where=path) from None


def _names(
    file: "pq.ParquetFile", columns: "pa.Schema | Sequence[str] | None", exact: bool, path: object, make: str | None
) -> list[str]:
    there = list(file.schema_arrow.names)
    twice = next((name for name in there if there.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"the column '{quoted(twice)}' is there twice", where=path, do=make)
    if columns is None:
        return there
    wanted = list(getattr(columns, "names", columns))
    for name in wanted:
        if name not in there:
            near = nearest_name(name, there)
            has = f"; there is '{quoted(near)}'" if near else ""
            raise UserError(f"the column '{name}' is missing{has}", where=path, do=make)
    return wanted if exact or isinstance(columns, Sequence) else there


def _allowed(path: str | Path) -> int:
    return max(PLAIN_DATA, LARGEST_EXPANSION * regular_size(path))


def _too_large(path: object, size: int) -> UserError:
    return UserError(
        f"unpacks to more than {size:,} bytes, which no file of this size should", where=path, do="don't open it"
    )


def _small_enough(file: "pq.ParquetFile", path: str | Path) -> None:
    """Judge by what the file says of itself, before anything is unpacked."""
    meta = file.metadata
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    said = sum(max(0, group.total_byte_size) for group in groups)
    if meta.num_rows > MOST_ROWS or meta.num_rows < 0:
        raise UserError(f"{meta.num_rows:,} rows are more than such a file has", where=path, do="don't open it")
    if said > _allowed(path):
        raise _too_large(path, _allowed(path))


def _unpacked(file: "pq.ParquetFile", names: list[str], path: str | Path) -> "pa.Table":
    """The columns. Text is taken as indices into its values, and written out only once its size is known: one packed
    value can stand in every row."""
    import pyarrow as pa

    tables, size, most = [], 0, _allowed(path)
    nested = any(pa.types.is_nested(file.schema_arrow.field(name).type) for name in names)
    for batch in file.iter_batches(batch_size=NESTED_BATCH if nested else BATCH, columns=names):
        size += sum(_written_out(column) for column in batch.columns)
        if size > most:
            raise _too_large(path, most)
        plain = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in batch.columns]
        tables.append(pa.Table.from_arrays(plain, names=batch.schema.names))
    if not tables:
        return file.schema_arrow.empty_table().select(names)
    return pa.concat_tables(tables).select(names)


def _written_out(column: "pa.Array") -> int:
    """Bytes of a column with every value in its place."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    if not pa.types.is_binary(column.type.value_type) and _kind(column.type) != "text":
        return len(column) * 8
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return len(column) * 4 + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _as_schema(table: "pa.Table", schema: "pa.Schema", path: object, make: str | None) -> "pa.Table":
    """The table with the schema's columns in its types; values may only be of the same kind (text, number, flag)."""
    import pyarrow as pa

    for field in schema:
        at, column = table.schema.get_field_index(field.name), table[field.name]
        where = f"{path}, column '{field.name}'"
        kind, wanted = _kind(column.type), _kind(field.type)
        if kind not in (wanted, "nothing") and {kind, wanted} != {"whole", "number"}:
            raise UserError(f"{column.type} where {field.type} is needed", where=where, do=make)
        if column.null_count and not field.nullable:
            row = column.is_null().to_pylist().index(True)
            raise UserError("a null where a value is needed", where=f"{where}, row {row + 1}", do=make)
        try:
            cast = column.cast(field.type)
            cast.validate(full=True)
        except pa.ArrowException as e:
            raise UserError(f"values that aren't {field.type}: {quoted(e)}", where=where, do=make) from None
        table = table.set_column(at, field, cast)
    return table


def _kind(value: "pa.DataType") -> str:
    """Types that hold the same kind of value have one name."""
    from pyarrow import types

    if types.is_dictionary(value):
        return _kind(value.value_type)
    kinds = {
        "nothing": types.is_null(value),
        "text": types.is_string(value) or types.is_large_string(value),
        "flag": types.is_boolean(value),
        "whole": types.is_integer(value),
        "number": types.is_floating(value),
    }
    return next((kind for kind, is_it in kinds.items() if is_it), str(value))
