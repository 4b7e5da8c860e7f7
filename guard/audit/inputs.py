"""Prompts and images to audit, one at a time: an input of any length costs no memory.

A row that cannot be used is a `Reject` in its place, so that one bad row among a hundred thousand stops nothing; a file
that cannot be used at all is an InputError, raised before any work is done. As in `check`, blank lines are no rows, nor
are lines of a .txt that start with "# ".
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import InputError, SidecarError, require
from ..sidecar.digests import file_sha256
from .rows import Reject, Row, excerpt

FORMATS = {".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
LONGEST = 20_000  # characters; text encoders read some hundred words, and tokenizers may be slow on the rest
MOST_LINE = 4 << 20  # bytes
READ_AT_ONCE = 1024  # rows of a parquet file


class Odd(NamedTuple):
    """What lies where a text should be."""

    reason: str
    value: object


class Prompts:
    """The prompts of a .txt, .jsonl, .csv, .tsv or .parquet file.

    Args:
        path: The file.
        column: Of a table, or field of JSON lines, that holds the prompts.

    Raises:
        InputError: The file does not exist, is of another format or malformed, has no such column, or no usable row. It
            is read through once here.
    """

    def __init__(self, path: Path, column: str = "prompt"):
        if path.suffix.lower() not in FORMATS:
            raise InputError(f"{path} is of no known format: give a file that ends in {', '.join(FORMATS)}")
        if not path.is_file():
            raise InputError(f"there is no file {path}: check the name")
        self.path, self.column, self.format = path, column, FORMATS[path.suffix.lower()]
        self.total = usable = 0
        first: Reject | None = None
        for row in self:
            self.total += 1
            usable += isinstance(row, Row)
            first = first or (row if isinstance(row, Reject) else None)
        if not self.total:
            raise InputError(f"{path} holds no prompt: put one on each line, or in the column named")
        if first is not None and not usable:
            raise InputError(
                f"none of the {self.total} rows of {path} can be used; the first {first.reason}: see --column"
            )

    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def __iter__(self) -> Iterator[Row | Reject]:
        for number, value in enumerate(_READERS[self.format](self.path, self.column)):
            yield _checked(number, value)


class Images:
    """The image files of a folder and its subfolders, by name; each row's value is the path within the folder.

    Args:
        folder: The folder.
        suffixes: What image files end in.

    Raises:
        InputError: There is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, suffixes: tuple[str, ...]):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: check the name")
        found = (file for file in folder.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        self.folder, self.files = folder, sorted(file.relative_to(folder).as_posix() for file in found)
        if not self.files:
            raise InputError(f"the folder {folder} holds no images ({', '.join(suffixes)}): give another")
        self.total = len(self.files)

    def digest(self) -> str:
        """SHA-256 over names and sizes; reading every byte could take longer than the audit."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(f"{name}\0{(self.folder / name).stat().st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Row | Reject]:
        for number, name in enumerate(self.files):
            try:
                name.encode()
            except UnicodeEncodeError:
                yield Reject(number, "its name is not UTF-8: rename it", excerpt(name))
                continue
            yield Row(number, name)


def sha256_of(path: Path) -> str:
    """Of a file's content. Raises InputError if it cannot be read."""
    try:
        return file_sha256(path)
    except SidecarError as error:
        raise InputError(str(error)) from error


def _checked(number: int, value: "str | Odd") -> Row | Reject:
    if isinstance(value, Odd):
        return Reject(number, value.reason, excerpt(value.value))
    text = value.strip()
    if not text:
        return Reject(number, "is empty", "")
    if len(text) > LONGEST:
        return Reject(number, f"has {len(text)} characters, and at most {LONGEST} are read", excerpt(text))
    try:
        text.encode()
    except UnicodeEncodeError:
        return Reject(number, "is not UTF-8 text", excerpt(text))
    return Row(number, text)


def _lines(stream: BinaryIO) -> Iterator[bytes | Odd]:
    """Lines without blank ones; of one that never ends, only the beginning is kept."""
    mark = b"\xef\xbb\xbf"
    first = True
    while line := stream.readline(MOST_LINE):
        line, first = line.removeprefix(mark) if first else line, False
        if len(line) >= MOST_LINE - len(mark) and not line.endswith(b"\n"):
            while (rest := stream.readline(MOST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield Odd(f"is a line of over {MOST_LINE >> 20} MB", line[:800].decode("utf-8", "replace"))
        elif line.strip():
            yield line


def _text(path: Path, column: str) -> Iterator["str | Odd"]:
    with path.open("rb") as stream:
        for line in _lines(stream):
            if isinstance(line, Odd) or not line.startswith(b"# "):
                yield line if isinstance(line, Odd) else line.decode("utf-8", "surrogateescape")


def _json_lines(path: Path, column: str) -> Iterator["str | Odd"]:
    with path.open("rb") as stream:
        for line in _lines(stream):
            yield line if isinstance(line, Odd) else _field(line.decode("utf-8", "surrogateescape"), column)


def _field(line: str, column: str) -> "str | Odd":
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Odd(f"is not valid JSON ({error})", line)
    if not isinstance(record, dict) or column not in record:
        return Odd(f"has no field {column!r}", line)
    return _as_text(record[column])


def _table(path: Path, column: str, delimiter: str = ",") -> Iterator["str | Odd"]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter, strict=True)
        header = _next(rows)
        if not isinstance(header, list) or column not in header:
            columns = ", ".join(name for name in header or [] if isinstance(name, str) and name) or "none"
            raise InputError(f"{path} has no column {column!r} (its columns: {columns}): name one with --column")
        place = header.index(column)
        while (row := _next(rows)) is not None:
            if isinstance(row, Odd):
                yield row
            elif row:  # otherwise a blank line
                yield row[place] if len(row) > place else Odd(f"has no column {column!r}", delimiter.join(row))


def _next(rows: Any) -> "list[str] | Odd | None":
    """The next row; None at the end. After an error the reader goes on with the next line."""
    try:
        return next(rows, None)
    except csv.Error as error:
        return Odd(f"is not valid CSV ({error})", f"line {rows.line_num}")


def _tab_table(path: Path, column: str) -> Iterator["str | Odd"]:
    return _table(path, column, "\t")


def _parquet(path: Path, column: str) -> Iterator["str | Odd"]:
    arrow, parquet = require("pyarrow", "audit"), require("pyarrow.parquet", "audit")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            if column not in schema.names:
                columns = ", ".join(schema.names) or "none"
                raise InputError(f"{path} has no column {column!r} (its columns: {columns}): name one with --column")
            for batch in file.iter_batches(READ_AT_ONCE, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _as_text(value)
    except (arrow.ArrowException, OSError) as error:
        words = str(error).strip().split("\n")[0]
        raise InputError(f"{path} cannot be read ({words}): it is cut off or no Parquet; get it again") from error


def _as_text(value: object) -> "str | Odd":
    if isinstance(value, str):
        return value
    return Odd("is no text but nothing" if value is None else f"is no text but {type(value).__name__}", value)


_READERS = {"txt": _text, "csv": _table, "tsv": _tab_table, "jsonl": _json_lines, "parquet": _parquet}
