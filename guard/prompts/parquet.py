"""Prompts in a column of a Parquet file, read in batches whose memory does not depend on what the cells hold."""

import io
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..errors import InputError, require
from ..printable import first_line
from .columns import Column
from .rows import EXCERPT, LONGEST, Found, Odd
from .text import Pushed

AT_ONCE = 1024  # rows
MOST_BYTES = 4 * LONGEST  # of a cell; UTF-8 has at most four per character
MOST_CHUNK = 512 << 20  # bytes of a column in a row group, unpacked
SURE_CHUNK = 64 << 20  # below that no ratio is odd
MOST_RATIO = 100  # of unpacked to packed bytes


def from_parquet(stream: BinaryIO, column: Column) -> Iterator[Found]:
    """Yields the cell of that column in each row.

    Raises:
        InputError: It is no sound Parquet file, has no such column, or several, or a row group would unpack to more
            than memory should be asked for.
        MissingPackage: pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "audit"), require("pyarrow.parquet", "audit")
    with _seekable(stream) as file:
        try:
            with parquet.ParquetFile(file) as opened:
                name = opened.schema_arrow.names[column.required(opened.schema_arrow.names)]
                _require_room(opened.metadata, name, column.file)
            yield from _cells(arrow, parquet, file, name)
        except (arrow.ArrowException, OSError) as error:
            raise InputError(
                f"{column.file} cannot be read ({first_line(error)}): it is cut off, damaged or no Parquet; "
                "get it again"
            ) from error


def _cells(arrow: Any, parquet: Any, file: BinaryIO, name: str) -> Iterator[Found]:
    types = arrow.types
    with parquet.ParquetFile(file) as opened:
        kind = opened.schema_arrow.field(name).type
        rows = opened.metadata.num_rows
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)):
        for _ in range(rows):
            yield Found(Odd(f"is no text but {kind}", ""))
        return
    # as a dictionary: a long text that stands in many rows is there once
    with parquet.ParquetFile(file, read_dictionary=[name]) as opened:
        for batch in opened.iter_batches(AT_ONCE, columns=[name]):
            cells = batch.column(0)
            values = cells.dictionary if types.is_dictionary(cells.type) else cells
            numbers = cells.indices.to_pylist() if types.is_dictionary(cells.type) else range(len(cells))
            for number in numbers:
                yield Found(_text(None if number is None else values[number].as_buffer()))


def _text(cell: Any) -> str | Odd:
    """What a cell holds, which may be anything: Parquet files say that text is UTF-8, and nobody sees to it."""
    if cell is None:
        return Odd("is no text but nothing", None)
    if cell.size > MOST_BYTES:
        start = cell.slice(0, 4 * EXCERPT).to_pybytes().decode("utf-8", "replace")
        return Odd(f"has {cell.size} bytes, and at most {LONGEST} characters are read", start)
    data = cell.to_pybytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Odd("is not UTF-8 text", data[: 4 * EXCERPT].decode("utf-8", "replace"))


def _require_room(metadata: Any, name: str, file: str) -> None:
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            if chunk.path_in_schema != name:
                continue
            size, packed = chunk.total_uncompressed_size, max(1, chunk.total_compressed_size)
            if size > MOST_CHUNK or (size > SURE_CHUNK and size > MOST_RATIO * packed):
                raise InputError(
                    f"{file} would unpack to {size >> 20} MB in row group {number} of {group.num_rows} rows: write it "
                    f"with smaller row groups, and no cell of more than {LONGEST} characters"
                )


def _seekable(stream: BinaryIO) -> Any:
    """The stream itself if it is a file, otherwise a copy on disk."""
    if not isinstance(stream, io.BufferedReader) or not isinstance(stream.raw, Pushed):
        return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115  closed by the caller
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy
