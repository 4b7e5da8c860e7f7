"""Reading and writing the files around an image: bounded, regular files only, never half-written."""

import errno
from pathlib import Path

from ..errors import SidecarError
from ..files import read_regular, write_atomically
from ..printable import printable

SIDECAR, C2PA = ".cryptomnesia.json", ".c2pa"
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


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
    try:
        return read_regular(path, most)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise SidecarError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SidecarError(f"the {what} {printable(path)} cannot be used: {error}") from error


def write_file(path: Path, data: bytes, what: str) -> None:
    """Writes atomically. Raises SidecarError; an older file of that name is untouched then."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise SidecarError(f"the {what} {path} cannot be written: {error.strerror}: {_mend(error)}") from error
    except ValueError as error:
        raise SidecarError(f"the name of the {what} cannot be used: {error}") from error


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "free some space and save it again"
    return "choose a folder that exists and that you may write to"
