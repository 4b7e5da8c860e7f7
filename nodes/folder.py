"""models/cryptomnesia: where ComfyUI lists calibrations and signatures."""

from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ..guard.errors import InputError
from ..guard.files import require_file_name
from ..guard.printable import printable

FOLDER = "cryptomnesia"


def register() -> None:
    """Makes ComfyUI list the folder, beside what the user configured."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".json", ".safetensors"})


def names(ending: str) -> list[str]:
    """Returns the names of the files with that ending, as ComfyUI lists them."""
    try:
        listed = folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # ComfyUI remembers a folder that was deleted meanwhile
        folder_paths.filename_list_cache.pop(FOLDER, None)
        listed = folder_paths.get_filename_list(FOLDER)
    return [name for name in listed if name.endswith(ending)]


def path_of(name: str) -> Path:
    """Returns the path of a file that `names` lists."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def state(files: Iterable[str]) -> list[tuple[str, float]]:
    """Returns the files with the times of their last change, which make ComfyUI run a node again when one changes."""
    return [(name, path_of(name).stat().st_mtime) for name in files]


def new_file(name: str, ending: str) -> Path:
    """Returns where a new file goes: in the folder, which is made if it is not there, and nowhere else.

    Raises InputError for what is no plain file name.
    """
    try:
        plain = require_file_name(name.strip().removesuffix(ending))
    except ValueError as error:
        raise InputError(
            f'"{printable(name, 80)}" is no file name, since {error}: give letters, digits, spaces and dashes'
        ) from error
    folder = Path(folder_paths.get_folder_paths(FOLDER)[0])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{plain}{ending}"
