"""Tensors in files: safetensors, never a pickle; read within bounds, written atomically."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import InputError, require
from .files import ABSENT, open_regular, size_text, write_file
from .printable import first_line

LARGEST = 256 << 20  # bytes; no larger file is read whole
_LFS_POINTER = b"version https://git-lfs"


@contextmanager
def open_tensors(path: Path, what: str, remedy: str) -> Iterator[Any]:
    """Opens a safetensors file of any size within the block; nothing is read but what is called for.

    Args:
        path: The file.
        what: What messages call such a file, e.g. "signature file".
        remedy: What to do where it is damaged, e.g. "get the file again".

    Raises:
        InputError: It is missing, no regular file, cut off, a Git LFS pointer or no safetensors file.
        MissingPackage: safetensors is not installed.
    """
    safetensors = require("safetensors", "diffusers")
    try:
        _require_whole(path)
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no complete safetensors file ({first_line(error)}): {remedy}") from error
    except OSError as error:
        if error.errno in ABSENT:
            raise InputError(f"there is no {what} {path}: check the name") from error
        reason = error.strerror or first_line(error)
        raise InputError(f"the {what} {path} cannot be read: {reason}: check the file and its permissions") from error


def read_tensors(path: Path, what: str, *, largest: int = LARGEST) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Returns header and tensors of a safetensors file, which messages call `what`.

    Raises:
        InputError: It is larger than `largest` bytes, or as `open_tensors` says.
    """
    with open_tensors(path, what, "make it again") as file:
        if path.stat().st_size > largest:
            raise InputError(f"the {what} {path} is larger than {size_text(largest)}: it is not read")
        return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in list(file.keys())}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], what: str) -> None:
    """Writes a safetensors file atomically. Raises InputError, calling it `what`, where that cannot be."""
    data = require("safetensors.torch", "diffusers").save({k: v.contiguous() for k, v in tensors.items()}, dict(header))
    write_file(path, data, what)


def _require_whole(path: Path) -> None:
    """Raises InputError for what is no file with tensors at first sight, OSError where it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(len(_LFS_POINTER))
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if start == _LFS_POINTER:
        raise InputError(f"{path} is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
