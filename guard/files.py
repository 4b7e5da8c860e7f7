"""Files: read whole, bounded and regular only; written so that they are the old one or the new one, never half."""

import errno
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .errors import CryptomnesiaError, InputError
from .printable import printable_line

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_TEMPORARY = re.compile(r"\.cryptomnesia-[0-9a-f]{16}\.tmp")
_STALE = 24 * 3600  # seconds: no write takes so long
_swept: set[str] = set()
# names that Windows keeps for devices, whatever follows a dot
_DEVICES = re.compile(r"(con|prn|aux|nul|con(in|out)\$|(com|lpt)[\d\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
_LONGEST = 200  # bytes of a name; file systems allow 255, endings included


def require_file_name(name: str) -> str:
    """Returns the name, if every system can have a file of it, and it says what it seems to say.

    Raises ValueError, which says in half a sentence what is wrong.
    """
    if not name or name != Path(name).name or name.startswith(".") or any(c in name for c in '\\/:*?"<>|'):
        raise ValueError('it is empty, begins with a dot, or has a folder or one of :*?"<>| in it')
    if not name.isprintable():
        raise ValueError("it holds characters that cannot be seen")
    if name != name.rstrip(". ") or name != name.lstrip():
        raise ValueError("it begins or ends with a space, or ends with a dot")
    if _DEVICES.fullmatch(name):
        raise ValueError("Windows keeps it for a device")
    if len(name.encode()) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} bytes")
    return name


def read_regular(path: Path, limit: int) -> bytes:
    """Returns all bytes of a regular file.

    Raises:
        OSError: It is missing or cannot be read.
        ValueError: It is larger than `limit` bytes or no regular file (a pipe may never end), or no file can have that
            name.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {size_text(limit)}")
    return data


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading, and returns it. Raises what `read_regular` does, whatever its size."""
    # a pipe must not keep us waiting, and what is checked must be what is read
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file: give the file itself")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: Path, most: int, what: str, *, error: type[CryptomnesiaError] = InputError) -> bytes:
    """Returns all bytes of a regular file.

    Args:
        path: The file.
        most: How many bytes it may have.
        what: What messages call such a file, e.g. "image".
        error: The error that is raised, InputError by default.

    Raises:
        CryptomnesiaError: It is missing, no regular file, larger, or cannot be read; of that kind.
    """
    data = read_if_there(path, most, what, error=error)
    if data is None:
        raise error(f"there is no {what} {printable_line(str(path))}: check the name")
    return data


def read_if_there(path: Path, most: int, what: str, *, error: type[CryptomnesiaError] = InputError) -> bytes | None:
    """Returns what `read_file` does, but None where there is no such file."""
    name = printable_line(str(path))
    try:
        return read_regular(path, most)
    except OSError as why:
        if why.errno in ABSENT:
            return None
        raise error(f"the {what} {name} cannot be read: {why.strerror}: check its permissions") from why
    except ValueError as why:
        raise error(f"{name} is no {what} that can be read: {why}") from why


def write_file(path: Path, data: bytes, what: str, *, error: type[CryptomnesiaError] = InputError) -> None:
    """Writes a file atomically; an older one of that name is untouched where that fails.

    Args:
        path: The file.
        data: All of it.
        what: What messages call such a file.
        error: The error that is raised, InputError by default.

    Raises:
        CryptomnesiaError: It cannot be written; of that kind.
    """
    try:
        write_atomically(path, data)
    except OSError as why:
        full = why.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        remedy = (
            "free some space and save it again" if full else "choose a folder that exists and that you may write to"
        )
        name = printable_line(str(path))
        raise error(f"the {what} {name} cannot be written: {why.strerror}: {remedy}") from why
    except ValueError as why:
        raise error(f"the name of the {what} cannot be used: {why}") from why


def size_text(size: int) -> str:
    """Returns a number of bytes in words: "10 MiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file by a temporary one in the same folder, fsync and rename.

    Raises OSError (ValueError for a name that no file can have); an older file of that name is untouched then, and
    nothing half-written stays.
    """
    _sweep(path.parent)
    # a short name of its own: the path's may already be as long as the file system allows
    temporary = path.parent / f".cryptomnesia-{secrets.token_hex(8)}.tmp"
    try:
        create(temporary, data, 0o666)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def _sweep(folder: Path) -> None:
    """Removes what writers left in a folder that were killed, once per process; no file that may still be written."""
    key = os.path.abspath(folder)
    if key in _swept:
        return
    _swept.add(key)
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            ours = _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if ours and time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                remove(Path(entry.path))


def create(path: Path, data: bytes, mode: int) -> None:
    """Creates a file with those permissions from its first moment, on disk when this returns.

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
