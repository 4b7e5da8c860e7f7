"""Files the commands write."""

import os
import tempfile
from pathlib import Path

from ..errors import InputError


def make_folder(out: Path) -> None:
    """Before the long work, not after it. Raises InputError if a file is in the way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} cannot be a folder, a file is in the way: give another --out") from error


def write_text(path: Path, text: str) -> None:
    """Atomically, as UTF-8: whoever stops the command finds the old file or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically, as `write_text`."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
