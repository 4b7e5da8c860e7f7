"""Prompts in a column of a CSV file, as spreadsheets and programs write it."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TextIO

from ..errors import InputError
from .columns import Column
from .rows import Found, Odd
from .text import MOST_LINE, Line, lines

MOST_LINES = 1000  # of a record
_TRIED = (",", ";", "\t")
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # what spreadsheets may write above a table


def from_table(stream: TextIO, column: Column, delimiter: str | None) -> Iterator[Found]:
    """Yields the cell of that column in each row, without blank rows.

    Args:
        stream: The text; its first row holds the names of the columns.
        column: The column to read.
        delimiter: The character between cells; by the first row if None.

    Raises:
        InputError: There is no such column, or several.
    """
    records = Records(lines(stream, column.file))
    head = records.next_line()
    if head is not None and (found := _SEP.fullmatch(head.text)):
        delimiter, head = delimiter or found[1], records.next_line()
    if head is None:
        column.required([])
        return
    records.put_back([head])
    records.split_at(delimiter or _sniffed(head.text, column))
    _, names = next(iter(records))
    if isinstance(names, Odd):
        raise InputError(f"{column.file}, line {head.number}, which names the columns, {names.reason}: correct it")
    index = column.required(names)
    for line, cells in records:
        if isinstance(cells, Odd):
            yield Found(cells, line)
        elif len(cells) <= index:
            yield Found(Odd(f"has no column {column.name!r}", records.text), line)
        elif any(cells[len(names) :]):
            why = f"has {len(cells)} cells, and only {len(names)} have a name: put text with a delimiter into quotes"
            yield Found(Odd(why, records.text), line)
        else:
            yield Found(cells[index], line)


class Records:
    """The records of a table, each with the number of the line that it starts in, without those that are blank.

    After a line that cannot be read, e.g. since a quote in it is never closed, reading goes on with the very next one:
    one bad line costs one row, however many the quote seems to hold.
    """

    def __init__(self, source: Iterator[Line]):
        self.source, self.waiting = source, deque[Line]()
        self.taken: list[Line] = []  # by the record under way
        self.size = 0  # characters of these
        self.reader: Any = None

    def split_at(self, delimiter: str) -> None:
        """Sets the delimiter between cells; to be called before the first record is read."""
        self.reader = csv.reader(_Feed(self), delimiter=delimiter, strict=True)

    def next_line(self) -> Line | None:
        """Returns the next line that is not blank."""
        return next((line for line in self.source if line.text.strip()), None)

    def put_back(self, again: Iterable[Line]) -> None:
        """Puts lines back that are to be read again."""
        self.waiting.extendleft(reversed(list(again)))

    @property
    def text(self) -> str:
        """The text of the latest record, as it stands in the file."""
        return "".join(line.text for line in self.taken).strip()

    def __iter__(self) -> Iterator[tuple[int, list[str] | Odd]]:
        while True:
            self.taken, self.size = [], 0
            try:
                record = next(self.reader, None)
            except csv.Error as error:
                first, *rest = self.taken
                self.put_back(rest)
                yield first.number, Odd(f"is not valid CSV ({_words(error, len(rest))})", first.text)
                continue
            if record is None:
                return
            if any(cell.strip() for cell in record):
                yield self.taken[0].number, record


class _Feed:
    """Lines for csv, which must be able to go on after their end: some may be put back."""

    def __init__(self, records: Records):
        self.records = records

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        records = self.records
        line = records.waiting.popleft() if records.waiting else next(records.source)
        records.taken.append(line)
        records.size += len(line.text)
        if line.cut or records.size > MOST_LINE or len(records.taken) > MOST_LINES:
            raise csv.Error(f"it goes on for over {MOST_LINES:,} lines, or {MOST_LINE >> 20} million characters")
        return line.text


def _sniffed(head: str, column: Column) -> str:
    """The delimiter with which the first row names the column, and most columns."""
    cells_by_delimiter = {delimiter: next(csv.reader([head], delimiter=delimiter), []) for delimiter in _TRIED}
    named = {
        delimiter: cells for delimiter, cells in cells_by_delimiter.items() if _names(cells, column)
    } or cells_by_delimiter
    return max(named, key=lambda delimiter: len(named[delimiter]))


def _names(cells: list[str], column: Column) -> bool:
    try:
        return replace(column, taken=[]).among(cells) is not None
    except InputError:
        return True


def _words(error: csv.Error, more: int) -> str:
    if not more:
        return "a quote is never closed" if "unexpected end" in str(error) else str(error)
    return f"a quote in it is not closed as it should be in the {more} lines that follow"
