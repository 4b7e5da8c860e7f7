"""Reading and writing the files around an image: bounded, regular files only, never half-written."""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import SidecarError

SIDECAR, C2PA = ".cryptomnesia.json", ".c2pa"
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def sidecar_path(image: str | Path) -> Path:
    """Where the JSON sidecar of an image lies: its whole file name, with .cryptomnesia.json appended."""
    return _appended(Path(image), SIDECAR)


def c2pa_path(image: str | Path) -> Path:
    """Where the C2PA sidecar of an image lies: its whole file name, with .c2pa appended."""
    return _appended(Path(image), C2PA)


def _appended(image: Path, ending: str) -> Path:
    return image.parent / f"{image.name}{ending}"


def read_file(path: Path, most: int, what: str) -> bytes:
    """All bytes of a regular file. Raises SidecarError if it is missing, no regular file, or larger than `most`."""
    data = read_if_there(path, most, what)
    if data is None:
        raise SidecarError(f"the {what} {path} does not exist: check the name")
    return data


def read_if_there(path: Path, most: int, what: str) -> bytes | None:
    """As `read_file`, but None where there is no such file."""
    # a pipe must not keep us waiting, and what is checked must be what is read
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise SidecarError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SidecarError(f"the name of the {what} cannot be used: {error}") from error
    try:
        return _read(handle, path, most, what)
    except OSError as error:
        raise SidecarError(f"the {what} {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)


def _read(handle: int, path: Path, most: int, what: str) -> bytes:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise SidecarError(f"the {what} {path} is no regular file: give the file itself")
    with os.fdopen(handle, "rb", closefd=False) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise SidecarError(f"the {what} {path} is larger than {most >> 20} MiB: it is not read")
    return data


def write_atomically(path: Path, data: bytes, what: str) -> None:
    """A temporary file in the same folder, fsync, rename: whoever looks finds the old file or the whole new one.

    Raises SidecarError; an older file of that name is untouched then, and nothing half-written stays.
    """
    # a short name of its own: the path's may already be as long as the file system allows
    temporary = path.parent / f".cryptomnesia-{secrets.token_hex(8)}.tmp"
    try:
        create(temporary, data, 0o666)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise SidecarError(f"the {what} {path} cannot be written: {error.strerror}: {_mend(error)}") from error
    except ValueError as error:
        raise SidecarError(f"the name of the {what} cannot be used: {error}") from error
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
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
        with suppress(OSError):
            path.unlink()
        raise
    os.close(handle)


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free some space and save it again"
    return "choose a folder that exists and that you may write to"


def remove(path: Path) -> None:
    """Removes a file if it is there and can be."""
    with suppress(OSError):
        path.unlink()
