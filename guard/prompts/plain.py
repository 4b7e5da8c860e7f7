"""Prompts one on each line, in JSON objects one on each line, or in one JSON array."""

import io
import json
from collections.abc import Iterator
from typing import Any, TextIO

from ..errors import InputError
from ..strict_json import parse_json
from .columns import Column
from .rows import Found, Odd
from .text import MOST_LINE, Line, line_ends, lines, whole

MOST_ARRAY = 64 << 20  # characters


def from_lines(stream: TextIO, column: Column, *, sure: bool) -> Iterator[Found]:
    """Yields each line that is neither blank nor a comment.

    Args:
        stream: The text.
        column: Only to tell that this is a file of another kind.
        sure: Whether the user said that the file is of this kind.

    Raises:
        InputError: The first line is that of another kind of file.
    """
    first = not sure
    for line in lines(stream, column.file):
        if not is_prompt(line.text):
            continue
        if first:
            _require_plain(line.text, column)
        first = False
        yield _too_long(line) if line.cut else Found(line.text, line.number)


def is_prompt(line: str) -> bool:
    """Returns whether a line is neither blank nor a comment. "# " starts a comment; "#hashtag" may start a prompt."""
    return bool(line.strip()) and not line.startswith("# ")


def from_json_lines(stream: TextIO, column: Column) -> Iterator[Found]:
    """Yields the field of the object, or the string, that each line holds; without blank lines."""
    for line in lines(stream, column.file):
        if line.cut:
            yield _too_long(line)
        elif line.text.strip():
            yield Found(_text_in(line.text, column), line.number)


def from_json(stream: TextIO, column: Column) -> Iterator[Found]:
    """Yields the field of each object, or each string, of an array; or as `from_json_lines` where there is none.

    Raises:
        InputError: It is too long to be read at once, or no JSON.
    """
    text = whole(stream, column.file, MOST_ARRAY)
    if text.lstrip().startswith("["):
        return _elements(text, column)
    return from_json_lines(io.StringIO(text, newline=""), column)


def _elements(text: str, column: Column) -> Iterator[Found]:
    """Elements of an array, one at a time. The slow part, the strict reading, is of each element alone."""
    scan, position, count = json.JSONDecoder().raw_decode, text.index("[") + 1, 0
    before, line = 0, 1  # up to where lines were counted
    while True:
        position = _past_blanks(text, position)
        if count or text[position : position + 1] == "]":
            if text[position : position + 1] == "]":
                if text[position + 1 :].strip():
                    raise InputError(f"{column.file} goes on after its array: write one object per line, as .jsonl")
                return
            if text[position : position + 1] != ",":
                raise _broken(column, line + line_ends(text[before:position]), "a comma or ] is missing")
            position = _past_blanks(text, position + 1)
        line, before = line + line_ends(text[before:position]), position
        try:
            _, end = scan(text, position)
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(getattr(error, "msg", error))
            raise _broken(column, line, why) from error
        yield Found(_text_in(text[position:end], column), line)
        position, count = end, count + 1


def _broken(column: Column, line: int, why: str) -> InputError:
    return InputError(f"{column.file}, line {line} is not valid JSON ({why}): correct it, or get the file again")


def _past_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _text_in(text: str, column: Column) -> str | Odd:
    """The prompt in a JSON value."""
    try:
        record = parse_json(text.strip())
    except ValueError as error:
        return Odd(f"is not valid JSON ({error})", text)
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        return Odd(f"has no field {column.name!r}", text)
    names = list(record)
    try:
        index = column.among(names)
    except InputError:
        return Odd(f"has several fields {column.name!r}", text)
    return Odd(f"has no field {column.name!r}", text) if index is None else as_text(record[names[index]])


def as_text(value: Any) -> str | Odd:
    """Returns the value if it is a text."""
    if isinstance(value, str):
        return value
    return Odd("is no text but nothing" if value is None else f"is no text but {type(value).__name__}", value)


def _too_long(line: Line) -> Found:
    return Found(Odd(f"is a line of over {MOST_LINE >> 20} million characters", line.text), line.number)


def _require_plain(line: str, column: Column) -> None:
    """Raises InputError where a list of prompts would be read from the lines of a table, or of JSON."""
    cells = [cell.strip().strip('"').casefold() for cell in line.split("\t")]
    kind = None
    if len(cells) > 1 and column.name.strip().casefold() in cells:
        kind = "a table", "tsv"
    elif line.strip() in ("[", "{", "[{"):
        kind = "JSON", "json"
    elif line.lstrip().startswith(("{", "[")):
        try:
            kind = ("JSON lines", "jsonl") if isinstance(json.loads(line), dict) else ("a JSON array", "json")
        except (ValueError, RecursionError):
            return
    if kind:
        raise InputError(
            f"{column.file} looks like {kind[0]}: add --format {kind[1]}, or --format txt if its lines are prompts"
        )
