"""Files that are either the old one or the whole new one, whenever somebody looks or the power fails."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """A temporary file in the same folder, fsync, rename.

    Raises OSError (ValueError for a name that no file can have); an older file of that name is untouched then, and
    nothing half-written stays.
    """
    # a short name of its own: the path's may already be as long as the file system allows
    temporary = path.parent / f".cryptomnesia-{secrets.token_hex(8)}.tmp"
    try:
        create(temporary, data, 0o666)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def create(path: Path, data: bytes, mode: int) -> None:
    """A new file with those permissions from its first moment, on disk when this returns.

    Raises OSError, e.g. FileExistsError; nothing stays of a file that could not be finished.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except BaseException:
        os.close(handle)
        remove(path)
        raise
    os.close(handle)


def remove(path: Path) -> None:
    """Removes a file if it is there and can be."""
    with suppress(OSError, ValueError):
        path.unlink()
