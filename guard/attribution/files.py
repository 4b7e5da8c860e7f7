"""Tensors in files: safetensors, never a pickle; read within bounds, written atomically."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import InputError, require
from ..files import write_atomically

LARGEST = 256 << 20  # bytes; no larger file is read


def read_tensors(path: Path, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file, which errors call `what`.

    Raises:
        InputError: It is missing, larger than 256 MiB, cut off or no safetensors file.
    """
    safetensors = require("safetensors", "diffusers")
    try:
        if not path.is_file():
            raise InputError(f"there is no {what} {path}: check the name")
        if path.stat().st_size > LARGEST:
            raise InputError(f"the {what} {path} is larger than {LARGEST >> 20} MiB: it is not read")
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in list(file.keys())}
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is no complete safetensors file ({error}): make it again") from error
    except OSError as error:
        raise InputError(
            f"the {what} {path} cannot be read: {error.strerror or error}: check its permissions"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Atomically. Raises InputError where that cannot be."""
    data = require("safetensors.torch", "diffusers").save({k: v.contiguous() for k, v in tensors.items()}, dict(header))
    try:
        write_atomically(path, data)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}: choose a folder you may write to") from error
