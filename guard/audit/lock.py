"""One run at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from .shards import unwritable

FILE = ".lock"


@contextmanager
def locked(folder: Path, what: str = "audit") -> Iterator[None]:
    """Returns a context that holds a folder for this process, for work of the kind that messages call `what`.

    The lock ends with the process, whatever ends it; the file may stay.

    Raises:
        InputError: Another process holds it, or it cannot be written to.
    """
    try:
        handle = os.open(folder / FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(folder / FILE, error) from error
    try:
        if not _taken(handle):
            raise InputError(
                f"another {what} is writing to {folder}: wait for its end and give the same command, or give another "
                "--out"
            )
        yield
    finally:
        os.close(handle)  # and with it the lock


def _taken(handle: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks must not forbid to work
    return True
