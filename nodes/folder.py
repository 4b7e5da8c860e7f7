"""models/cryptomnesia: where ComfyUI lists calibrations and signatures."""

from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ..guard.errors import InputError

FOLDER = "cryptomnesia"
LONGEST = 200  # bytes of a name; file systems allow 255, endings included


def register() -> None:
    """Makes ComfyUI list it, beside what the user configured."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    places, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (places, {".json", ".safetensors"})


def names(ending: str) -> list[str]:
    """Files with that ending."""
    try:
        found = folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # ComfyUI remembers a folder that was deleted meanwhile
        folder_paths.filename_list_cache.pop(FOLDER, None)
        found = folder_paths.get_filename_list(FOLDER)
    return [name for name in found if name.endswith(ending)]


def path_of(name: str) -> Path:
    """Of a file that `names` lists."""
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))


def state(files: Iterable[str]) -> list[tuple[str, float]]:
    """Changes when one of the files does, so that ComfyUI runs a node again."""
    return [(name, path_of(name).stat().st_mtime) for name in files]


def new_file(name: str, ending: str) -> Path:
    """Where a new file goes: in the folder, which is made if it is not there, and nowhere else.

    Raises InputError for what is no plain file name.
    """
    plain = name.strip().removesuffix(ending)
    odd = plain.startswith(".") or any(c in plain for c in '\\/:*?"<>|\0') or len(plain.encode()) > LONGEST
    if not plain or plain != Path(plain).name or odd:
        raise InputError(f"{name[:80]!r} is no file name: give letters, digits, spaces and dashes, without folders")
    place = Path(folder_paths.get_folder_paths(FOLDER)[0])
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{plain}{ending}"
