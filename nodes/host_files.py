"""Files in ComfyUI's own folders: nothing outside them is read or written."""

import os
from pathlib import Path

import folder_paths

from ..guard.errors import InputError
from ..guard.printable import printable

FOLDERS = ["output", "input", "temp"]


def inside(name: str, folder: str) -> Path:
    """Returns the path of a file in one of FOLDERS. Raises InputError for what leads out of it, links included."""
    if folder not in FOLDERS:
        raise InputError(f'"{printable(folder, 40)}" is none of ComfyUI\'s folders: use one of {", ".join(FOLDERS)}')
    root = os.path.realpath(folder_paths.get_directory_by_type(folder))
    try:
        path = os.path.realpath(os.path.join(root, name))
        within = os.path.commonpath([root, path]) == root
    except ValueError:  # no path at all, or on another drive
        path, within = name, False
    if not within:
        raise InputError(f"{name!r} is not inside the {folder} folder: only ComfyUI's own folders are read")
    return Path(path)


def numbered(prefix: str, output: str, width: int, height: int) -> tuple[str, str, int, str, str]:
    """Returns ComfyUI's own choice of folder, name, counter, subfolder and prefix for what is saved.

    Raises InputError for names that lead out of the output folder, where ComfyUI raises a bare Exception.
    """
    if not prefix.isprintable():
        raise InputError(f'"{printable(prefix, 80)}" holds characters that cannot be seen: give another name')
    try:
        within = Path(output, Path(prefix).parent).resolve().is_relative_to(Path(output).resolve())
        if within:
            return folder_paths.get_save_image_path(prefix, output, width, height)
    except (OSError, ValueError) as error:
        raise InputError(f"nothing can be saved as {prefix!r} in the output folder: {error}") from error
    raise InputError(f"{prefix!r} leads out of the output folder: give a name, or a folder inside it")
