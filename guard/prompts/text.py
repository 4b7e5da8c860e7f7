"""Text files as lines, whatever program saved them: packed with gzip or not, UTF-8 with or without a byte order mark or
UTF-16 with one, lines that end in LF, CR LF or CR alone.

Any other encoding is refused: read as if it were one of these, its prompts would be others than those in the file.
"""

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple, TextIO

from ..errors import InputError

STDIN = "-"
MOST_LINE = 4 << 20  # characters
MOST_UNPACKED = 2 << 30  # bytes out of a gzip file
_GZIP = b"\x1f\x8b"
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_FIRST = {mark[:1] for mark in (*_MARKS, _GZIP)}


class Line(NamedTuple):
    """A line with its end, and its number from 1; of one that is `cut`, only the beginning."""

    number: int
    text: str
    cut: bool = False


class Pushed(io.RawIOBase):
    """A stream with bytes put back in front of it, that ends with an error after so many bytes.

    Closing it leaves the stream open.
    """

    def __init__(self, head: bytes, rest: Any, most: float = float("inf"), name: str = ""):
        self.head, self.rest, self.left, self.name = head, rest, most, name

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads as much as is there, waiting for nothing more, and returns the number of bytes."""
        data = self.head[: len(buffer)] or self.rest.read1(len(buffer))
        self.head = self.head[len(buffer) :]
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.name} unpacks to over {MOST_UNPACKED >> 30} GB: unpack it first")
        buffer[: len(data)] = data
        return len(data)


def _unhurried(path: str, flags: int) -> int:
    """Opens pipes, too, as in `<(grep cat log.txt)`; one that nobody writes to is empty, not awaited."""
    waits = getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | waits)
    if waits:
        os.set_blocking(handle, True)
    return handle


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Opens the bytes of a file, or of standard input ("-"), unpacked if they are packed.

    Raises InputError if there is no such file, or if what is read from it turns out damaged.
    """
    require_file(file)
    name = name_of(file)
    try:
        stream: Any = sys.stdin.buffer if file == STDIN else open(file, "rb", opener=_unhurried)  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror or error}): check the file and its permissions"
        ) from error
    try:
        head = _beginning(stream)
        if head.startswith(_GZIP):
            unpacked: Any = gzip.GzipFile(fileobj=io.BufferedReader(Pushed(head, stream)))
            yield io.BufferedReader(Pushed(b"", unpacked, MOST_UNPACKED, name))
        elif file != STDIN and stream.seekable():
            stream.seek(0)
            yield stream
        else:
            yield io.BufferedReader(Pushed(head, stream))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name} is no whole gzip file ({error}): get it again") from error
    finally:
        if file != STDIN:
            stream.close()


def require_file(file: str) -> None:
    """Raises InputError if a name is neither that of a file nor "-"."""
    if file != STDIN and os.path.isdir(file):
        raise InputError(f"{file} is a folder: name a file of prompts in it")
    if file != STDIN and not os.path.exists(file):
        raise InputError(f"there is no file {file}: check the name")


def name_of(file: str) -> str:
    """Returns what messages call a file."""
    return "standard input" if file == STDIN else file


def decoded(stream: BinaryIO, name: str) -> TextIO:
    """Returns the stream as text, without its mark; line ends stay what they are. See `lines` for what is not text."""
    head = _beginning(stream)
    if head == codecs.BOM_UTF32_LE:
        raise InputError(f"{name} is UTF-32 text: save it as UTF-8")
    mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    # what is broken becomes lone surrogates, so that `lines` can tell where it stands
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    rest = io.BufferedReader(Pushed(head[len(mark) :], stream))
    return io.TextIOWrapper(rest, encoding=encoding, errors=errors, newline="")


def lines(stream: TextIO, name: str) -> Iterator[Line]:
    """Yields every line, blank ones too; a line that hardly ends is cut.

    Raises InputError, naming the line, where the text is in no encoding that is read.
    """
    number = 0
    try:
        while text := stream.readline(MOST_LINE):
            number += 1
            cut = _unfinished(text)
            while cut and _unfinished(stream.readline(MOST_LINE)):
                pass
            _require_text(text, name, number, stream.encoding)
            yield Line(number, text[:1000] if cut else text, cut)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is cut off in its last character: get it again, or save it as UTF-8") from error


def whole(stream: TextIO, name: str, most: int) -> str:
    """Returns all of the text. Raises InputError for more than so many characters, or as `lines` does."""
    try:
        text = stream.read(most + 1)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is cut off in its last character: get it again, or save it as UTF-8") from error
    if len(text) > most:
        raise InputError(f"{name} is longer than {most >> 20} million characters: write one object per line, as .jsonl")
    _require_text(text, name, 1, stream.encoding)
    return text


def line_ends(text: str) -> int:
    """Returns how many line ends a text holds."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _unfinished(text: str) -> bool:
    return len(text) == MOST_LINE and text[-1] not in "\r\n"


def _beginning(stream: Any) -> bytes:
    """Up to four bytes; no more than one is waited for unless it may be part of a mark."""
    head = stream.read(1)
    while head[:1] in _FIRST and len(head) < 4 and (more := stream.read(4 - len(head))):
        head += more
    return head


def _require_text(text: str, name: str, number: int, encoding: str) -> None:
    """`number` is that of the first line of the text."""
    if (place := text.find("\0")) >= 0:
        where = f"{name}, line {number + line_ends(text[:place])}"
        raise InputError(
            f"{where} holds NUL characters, as no text does but UTF-16 without a byte order mark: save it as UTF-8"
        )
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"{name}, line {number + line_ends(text[: error.start])}"
        known = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise InputError(f"{where} is not {known} text: save the file as UTF-8") from error
