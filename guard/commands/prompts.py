"""Prompts from arguments, a file or standard input, one at a time: a list of any length costs no memory."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TextIO

from ..errors import InputError

FORMATS = ("txt", "csv", "tsv", "jsonl")
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
STDIN = "-"


class PromptSource:
    """Prompts given as arguments, followed by those of a file, without blank lines and lines that start with "# ".

    Args:
        arguments: Prompts as they are.
        file: A file name, "-" for standard input, or None.
        format: One of FORMATS; by the file's name if None.
        column: The CSV column or JSON field that holds the prompt.

    Raises:
        InputError: Nothing was given, or a file that cannot be read, is malformed, or holds no prompt. A file that
            can be read twice is read through once here, so that a broken line is found before any work is done.
    """

    def __init__(
        self, arguments: Iterable[str] = (), file: str | None = None, format: str | None = None, column: str = "prompt"
    ):
        self.arguments, self.file, self.column = list(arguments), file, column
        if not self.arguments and file is None:
            raise InputError("no prompts: give them as arguments, or --file FILE, or --file - to read standard input")
        if format is not None and format not in FORMATS:
            raise InputError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
        self.format = format or _SUFFIXES.get(Path(file or "").suffix.lower(), "txt")
        for text in self.arguments:
            _check_text(text, "the command line")
        self.total: int | None = None
        if file is None or (file != STDIN and Path(file).is_file()):
            self.total = sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        return chain(self.arguments, self._from_file() if self.file is not None else ())

    def _from_file(self) -> Iterator[str]:
        found = False
        with _opened(self.file or STDIN) as stream:
            for text in _READERS[self.format](stream, self.column, _name(self.file)):
                text = text.strip()
                if text:
                    found = True
                    yield text
        if not found:
            raise InputError(f"{_name(self.file)} holds no prompt: put one on each line, or in the column named")


def _name(file: str | None) -> str:
    return "standard input" if file in (None, STDIN) else str(file)


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"a prompt from {where} is not valid Unicode: type or save it as UTF-8") from error


@contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    """The file as UTF-8 text, a byte order mark left out."""
    try:
        if file == STDIN:
            stream: TextIO = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="")
        else:
            stream = open(file, encoding="utf-8-sig", newline="")  # noqa: SIM115  closed below
    except FileNotFoundError as error:
        raise InputError(f"there is no file {file}: check the name, or give prompts as arguments") from error
    except IsADirectoryError as error:
        raise InputError(f"{file} is a folder: name a file of prompts in it") from error
    try:
        yield stream
    except UnicodeDecodeError as error:
        raise InputError(f"{_name(file)} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    finally:
        stream.detach() if file == STDIN else stream.close()


def _lines(stream: TextIO, column: str, name: str) -> Iterator[str]:
    # "# " starts a comment; "#hashtag" may start a prompt
    return (line for line in stream if not line.startswith("# "))


def _json_lines(stream: TextIO, column: str, name: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{where} is not valid JSON ({error}): write one object per line") from error
        if not isinstance(record, dict) or not isinstance(record.get(column), str):
            raise InputError(f"{where} has no text field {column!r}: name the field with --column")
        _check_text(record[column], where)
        yield record[column]


def _table(stream: TextIO, column: str, name: str, delimiter: str = ",") -> Iterator[str]:
    rows = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
        if column not in header:
            columns = ", ".join(h for h in header if h) or "none"
            raise InputError(f"{name} has no column {column!r} (its columns: {columns}): name one with --column")
        place = header.index(column)
        for row in rows:
            if row and len(row) <= place:
                raise InputError(f"{name}, line {rows.line_num} is too short: it has no column {column!r}")
            yield row[place] if row else ""
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.line_num} is not valid CSV: {error}") from error


def _tab_table(stream: TextIO, column: str, name: str) -> Iterator[str]:
    return _table(stream, column, name, "\t")


_READERS = {"txt": _lines, "csv": _table, "tsv": _tab_table, "jsonl": _json_lines}
