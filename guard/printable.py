"""Text from outside, made harmless for a terminal, a log or a message of one line."""

from typing import Any


def printable(text: Any, most: int = 200) -> str:
    """Returns a text as one line of at most `most` characters, without control, escape or direction characters."""
    line = printable_line(str(text)[: most + 1])
    return line if len(line) <= most else line[: most - 3] + "..."


def first_line(error: BaseException, most: int = 160) -> str:
    """Returns what an error says in its first line, at most so many characters; its kind where it says nothing."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0], most)


def printable_line(text: str) -> str:
    """Returns the whole text as one line, with spaces for what is not printable: ESC, C1, right-to-left marks."""
    return " ".join(blanked(text).split())


def blanked(text: str) -> str:
    """Returns the text, as long as before, with a space for each character that is not printable or ends a line."""
    return "".join(c if c.isprintable() else " " for c in text)
