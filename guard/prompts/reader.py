"""The one reader of prompt files: rows, or rejects in their place, so that one bad row among many stops nothing.

A file that cannot be read as what it is, in part or as a whole, is an InputError instead. Blank lines are no rows, nor
are lines of plain text that start with "# ". A list of any length costs no memory.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import InputError
from ..printable import printable
from .columns import Column, MissingColumn
from .parquet import from_parquet
from .plain import from_json, from_json_lines, from_lines, is_prompt
from .rows import Found, Odd, Reject, Row, row_of, trimmed
from .tables import from_table
from .text import STDIN, decoded, name_of, opened, require_file

FORMATS = ("txt", "csv", "tsv", "jsonl", "json", "parquet")
SUFFIXES = {
    **{".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl"},
    **{".ndjson": "jsonl", ".parquet": "parquet"},
}
PACKED = ".gz"
_TAB = {"tab": "\t", r"\t": "\t"}  # hard to type
NAMED = 3  # rejects that a message names


class PromptRows:
    """Prompts, read one after the other: rows, or rejects in their place.

    Attributes:
        name: What messages call what they are read from.
        rows, rejected: The numbers of rows, rejects among them, and of rejects in the latest reading.
    """

    def __init__(self, name: str):
        self.name = name
        self.rows = self.rejected = 0
        self._first: list[Reject] = []

    def __iter__(self) -> Iterator[Row | Reject]:
        self.rows = self.rejected = 0
        self._first = []
        for found in self._found():
            row = row_of(self.rows, found)
            self.rows += 1
            if isinstance(row, Reject):
                self.rejected += 1
                self._first += [row] if len(self._first) < NAMED else []
            yield row
        if not self.rows:
            raise InputError(f"{self.name} holds no prompt: put one on each line, or in the column named")
        if self.rejected == self.rows:
            first = self._first[0]
            raise InputError(
                f"none of the {self.rows} rows of {self.name} can be used; {first.where} {first.reason}: see --column"
            )

    def notes(self) -> list[str]:
        """Returns what there is to say about the latest reading, each in a line; nothing where all is well."""
        if not self.rejected:
            return []
        named = "; ".join(f"{one.where} {one.reason}" for one in self._first)
        more = f"; and {self.rejected - len(self._first)} more" if self.rejected > len(self._first) else ""
        return [f"{self.name}: {self.rejected} of {self.rows} rows could not be used ({named}{more})"]

    def _found(self) -> Iterator[Found]:
        raise NotImplementedError


class PromptLines(PromptRows):
    """Prompts one on each line, as they were typed or pasted; see `PromptFile` for files.

    Args:
        lines: The lines; blank ones and comments are no rows.
        name: What messages call them.
    """

    def __init__(self, lines: Iterable[str], name: str = "the list of prompts"):
        super().__init__(name)
        self.lines = list(lines)

    def _found(self) -> Iterator[Found]:
        return (Found(line, number) for number, line in enumerate(self.lines, 1) if is_prompt(line))


class PromptFile(PromptRows):
    """The prompts of a file, or of standard input; to be read once or, if it is a regular file, as often as wanted.

    Args:
        file: The file's name, or "-" for standard input.
        format: One of FORMATS; by the file's name if None.
        column: The column of a table, or the field of JSON objects, that holds the prompts; or several names, of which
            the first that there is will do.
        delimiter: Between the cells of a table; by its first row if None.

    Raises:
        InputError: There is no such file, or the format or delimiter is unknown. Reading raises it for a file that
            cannot be used, or of which no row can.
    """

    def __init__(
        self,
        file: str | Path,
        format: str | None = None,
        column: str | Sequence[str] = "prompt",
        delimiter: str | None = None,
    ):
        super().__init__(name_of(str(file)))
        first, *others = [column] if isinstance(column, str) else column
        self.file, self.column = str(file), Column(first, self.name, others=others)
        self.delimiter = None if delimiter is None else _TAB.get(delimiter, delimiter)
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise InputError(f"--delimiter is one character, e.g. ';' or tab, not {delimiter!r}")
        require_format(format)
        require_file(self.file)
        self.sure = format is not None
        self.format = format or format_of(self.file)

    @property
    def again(self) -> bool:
        """Whether the prompts can be read more than once."""
        return self.file != STDIN and os.path.isfile(self.file)

    def notes(self) -> list[str]:
        """Returns the notes of any rows, and which column was taken for the one that was named."""
        return self.column.notes() + super().notes()

    def beside(self, column: str) -> list[str | None] | None:
        """Returns what another column holds in each row, rejects among them; None for a cell without text.

        The file is read once more for it. None in place of the list where the file has no such column. Raises
        InputError as reading does.
        """
        try:
            cells = [found.value for found in PromptFile(self.file, self.format, column, self.delimiter)._found()]
        except MissingColumn:
            return None
        if self.format == "txt" or all(isinstance(cell, Odd) for cell in cells):
            return None
        return [None if isinstance(cell, Odd) else trimmed(cell) or None for cell in cells]

    def _found(self) -> Iterator[Found]:
        with opened(self.file) as stream:
            if self.format == "parquet":
                yield from from_parquet(stream, self.column)
                return
            text = decoded(stream, self.name)
            if self.format == "txt":
                yield from from_lines(text, self.column, sure=self.sure)
            elif self.format == "jsonl":
                yield from from_json_lines(text, self.column)
            elif self.format == "json":
                yield from from_json(text, self.column)
            else:
                yield from from_table(text, self.column, self.delimiter or ("\t" if self.format == "tsv" else None))


def require_format(format: str | None) -> None:
    """Raises InputError for a format that is unknown."""
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {printable(format)!r}: use one of {', '.join(FORMATS)}")


def format_of(file: str) -> str:
    """Returns the format that a name tells; plain lines for standard input, and for names without a suffix.

    Raises InputError where the suffix is unknown: a file of another kind is no list of prompts.
    """
    suffix = Path(file.lower().removesuffix(PACKED)).suffix
    if file == STDIN or not suffix:
        return "txt"
    if suffix not in SUFFIXES:
        raise InputError(
            f"{printable(file)} is of no known format: give a file that ends in {', '.join(SUFFIXES)}, packed as "
            f"{PACKED} or not, or name its format with --format"
        )
    return SUFFIXES[suffix]
