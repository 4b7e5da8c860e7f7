"""Files the commands write."""

from pathlib import Path

from ..errors import InputError
from ..files import write_atomically


def make_folder(out: Path) -> None:
    """Makes a folder, before the long work. Raises InputError if a file is in the way."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out} cannot be a folder, a file is in the way: give another --out") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text atomically, as UTF-8: whoever stops the command finds the old file or the new one."""
    write_atomically(path, text.encode())
