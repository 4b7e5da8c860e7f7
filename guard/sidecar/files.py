"""The files around an image, read and written as all files are, with the errors of a sidecar."""

from pathlib import Path

from .. import files
from ..errors import SidecarError


def read_file(path: Path, most: int, what: str) -> bytes:
    """As `files.read_file`. Raises SidecarError."""
    return files.read_file(path, most, what, error=SidecarError)


def read_if_there(path: Path, most: int, what: str) -> bytes | None:
    """As `files.read_if_there`. Raises SidecarError."""
    return files.read_if_there(path, most, what, error=SidecarError)


def write_file(path: Path, data: bytes, what: str) -> None:
    """As `files.write_file`. Raises SidecarError."""
    files.write_file(path, data, what, error=SidecarError)
