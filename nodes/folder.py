"""models/cryptomnesia: where ComfyUI lists calibrations and signatures."""

from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ..guard.errors import InputError
from ..guard.files import require_file_name
from ..guard.printable import printable

FOLDER = "cryptomnesia"


def register() -> None:
    """Makes ComfyUI list it, beside what the user configured."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    places, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (places, {".json", ".safetensors"})


def names(ending: str) -> list[str]:
    """The names of the files with that ending, as ComfyUI lists them."""
    try:
        found = folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # ComfyUI remembers a folder that was deleted meanwhile
        folder_paths.filename_list_cache.pop(FOLDER, None)
        found = folder_paths.get_filename_list(FOLDER)
    return [name for name in found if name.endswith(ending)]


def path_of(name: str) -> Path:
    """The path of a file that `names` lists."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def state(files: Iterable[str]) -> list[tuple[str, float]]:
    """The files with the times of their last change, which make ComfyUI run a node again when one changes."""
    return [(name, path_of(name).stat().st_mtime) for name in files]


def new_file(name: str, ending: str) -> Path:
    """Where a new file goes: in the folder, which is made if it is not there, and nowhere else.

    Raises InputError for what is no plain file name.
    """
    try:
        plain = require_file_name(name.strip().removesuffix(ending))
    except ValueError as error:
        raise InputError(
            f'"{printable(name, 80)}" is no file name, since {error}: give letters, digits, spaces and dashes'
        ) from error
    place = Path(folder_paths.get_folder_paths(FOLDER)[0])
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{plain}{ending}"
