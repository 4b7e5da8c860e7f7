"""What a list of prompts consists of: rows, and rejects in their place."""

from typing import NamedTuple

from ..prompt_text import LONGEST as LONGEST
from ..prompt_text import fault

EXCERPT = 200  # characters


class Row(NamedTuple):
    """One prompt or one image, and its 0-based position in the input."""

    row: int
    value: str


class Reject(NamedTuple):
    """A row that could not be used, why, how its content begins, and the line of a text file that it starts in."""

    row: int
    reason: str
    excerpt: str
    line: int | None = None

    @property
    def where(self) -> str:
        """The row's place in words."""
        return f"row {self.row} (counted from 0)" if self.line is None else f"line {self.line}"


class Odd(NamedTuple):
    """What lies where a text should be."""

    reason: str
    value: object


class Found(NamedTuple):
    """What a file holds where a prompt should be, and in which line (None where there are no lines)."""

    value: str | Odd
    line: int | None = None


def trimmed(text: str) -> str:
    """Returns the text without blanks around it, and without the mark of a file that was put behind another."""
    return text.strip().removeprefix("\ufeff").lstrip()


def row_of(number: int, content: Found) -> Row | Reject:
    """Returns what was found in a place, as a row if it is a prompt."""
    value, line = content
    if isinstance(value, Odd):
        return Reject(number, value.reason, excerpt(value.value), line)
    text = trimmed(value)
    reason = fault(text)
    return Row(number, text) if reason is None else Reject(number, reason, excerpt(text), line)


def reject(row: Row, reason: object) -> Reject:
    """Returns the row as a reject, with the reason in one line."""
    return Reject(row.row, " ".join(str(reason).split()), excerpt(row.value))


def excerpt(value: object) -> str:
    """Returns the beginning of a value that can be shown and stored, whatever it is."""
    text = value if isinstance(value, str) else repr(value)
    return text[:EXCERPT].encode("utf-8", "replace").decode()
