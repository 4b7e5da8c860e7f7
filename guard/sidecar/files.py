"""The files around an image, read and written as all files are, with the errors of a sidecar."""

from pathlib import Path

from .. import files
from ..errors import SidecarError


def read_file(path: Path, most: int, what: str) -> bytes:
    """Returns the bytes of a file of at most `most` bytes, as `files.read_file` does. Raises SidecarError."""
    return files.read_file(path, most, what, error=SidecarError)


def read_if_there(path: Path, most: int, what: str) -> bytes | None:
    """Returns the bytes of a file, or None without it, as `files.read_if_there` does. Raises SidecarError."""
    return files.read_if_there(path, most, what, error=SidecarError)


def write_file(path: Path, data: bytes, what: str) -> None:
    """Writes a file atomically, as `files.write_file` does. Raises SidecarError."""
    files.write_file(path, data, what, error=SidecarError)
