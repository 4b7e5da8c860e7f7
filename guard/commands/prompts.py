"""Prompts from arguments, a file or standard input, one at a time: a list of any length costs no memory."""

from collections.abc import Iterable, Iterator
from itertools import chain

from rich.text import Text

from ..errors import InputError
from ..printable import printable_line
from ..prompts.reader import PromptFile, require_format
from ..prompts.rows import Found, Reject, Row, row_of, trimmed
from .console import stderr


class PromptSource:
    """Prompts given as arguments, followed by those of a file; rows of it that are no prompts are left out, and told.

    Args:
        arguments: Prompts as they are.
        file, format, column, delimiter: The file and how it is read, see `PromptFile`; None for no file.

    Attributes:
        total: The number of prompts; None where that shows at the end only.

    Raises:
        InputError: Nothing was given, an argument is no prompt, or a file cannot be used, or no row of it. A file that
            can be read twice is read through once here, so that what is wrong with it is found before any work is done.
    """

    def __init__(
        self,
        arguments: Iterable[str] = (),
        file: str | None = None,
        format: str | None = None,
        column: str = "prompt",
        delimiter: str | None = None,
    ):
        self.arguments = list(arguments)
        if not self.arguments and file is None:
            raise InputError("no prompts: give them as arguments, or --file FILE, or --file - to read standard input")
        for number, text in enumerate(self.arguments, 1):
            row = row_of(number, Found(text))
            if isinstance(row, Reject) and trimmed(text):  # the empty prompt can be asked about
                raise InputError(f"prompt {number} of the command line {row.reason}: give another")
        require_format(format)
        self.file = None if file is None else PromptFile(file, format, column, delimiter)
        self.total: int | None = None
        if self.file is None or self.file.again:
            self.total = sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        return chain(self.arguments, (row.value for row in self.file or () if isinstance(row, Row)))

    def tell(self) -> None:
        """Says on stderr what is to be said of the file once it was read."""
        if self.file is not None:
            tell(self.file)


def tell(file: PromptFile) -> None:
    """Says on stderr what is to be said of a file that was read; see `PromptFile.notes`."""
    for note in file.notes():
        stderr().print(Text(printable_line(note), style="yellow"), soft_wrap=True)
