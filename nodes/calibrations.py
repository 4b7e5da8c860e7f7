"""Calibration files in ComfyUI's models folder, and which of them belongs to a model."""

import logging
from pathlib import Path
from typing import Any

import folder_paths

from ..guard.calibration import Calibration
from ..guard.demo import demo_calibration
from ..guard.errors import CalibrationError, InputError

FOLDER = "cryptomnesia"
ENDING = ".calibration.json"
AUTOMATIC, NONE = "automatic", "none"


def register_folder() -> None:
    """Makes ComfyUI list models/cryptomnesia, beside what the user configured."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    places, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (places, {".json"})


def folder() -> Path:
    """Where new calibrations go; made if it is not there."""
    place = Path(folder_paths.get_folder_paths(FOLDER)[0])
    place.mkdir(parents=True, exist_ok=True)
    return place


def choices(*, optional: bool = True) -> list[str]:
    """For a node's widget; "none" only where a node can do without."""
    return [AUTOMATIC, *([NONE] if optional else []), *_names()]


def state(choice: str) -> list[tuple[str, float]]:
    """Changes when a calibration that the choice may mean does, so that ComfyUI runs the node again."""
    return [(name, _path(name).stat().st_mtime) for name in _names() if choice in (AUTOMATIC, name)]


def find(
    choice: str, denoiser: Any, draws: int | None, shape: tuple[int, int, int]
) -> tuple[Calibration | None, str | None]:
    """The calibration, and why there is none.

    Args:
        choice: A file's name, "automatic" or "none".
        denoiser: The model.
        draws: That must fit, or None for any.
        shape: (C, H, W) of the latent.

    Raises:
        CalibrationError: The file that was chosen is malformed, or was made for something else.
    """
    if choice == NONE:
        return None, "no calibration was chosen: there is a score, but no verdict"
    if choice != AUTOMATIC:
        chosen = Calibration.load(_path(choice))
        chosen.require(denoiser, draws or chosen.draws, shape)
        return chosen, None
    reason = "no calibration for this model: make one with Calibrate Model"
    fingerprint = denoiser.fingerprint
    for calibration in _all():
        try:
            calibration.require(denoiser, draws or calibration.draws, shape, fingerprint)
            return calibration, None
        except CalibrationError as error:
            if calibration.fingerprint == fingerprint:
                reason = str(error)  # the right model, so what differs is worth telling
    return None, reason


def require(choice: str, denoiser: Any, shape: tuple[int, int, int]) -> Calibration:
    """Like `find`, for nodes that can do nothing without a calibration. Raises InputError if there is none."""
    calibration, reason = find(choice, denoiser, None, shape)
    if calibration is None:
        raise InputError(f"this node needs a calibration; {reason}")
    return calibration


def _all() -> list[Calibration]:
    """Those in the folder, newest first, then the built-in model's own."""
    found = []
    for path in sorted((_path(name) for name in _names()), key=lambda path: -path.stat().st_mtime):
        try:
            found.append(Calibration.load(path))
        except CalibrationError as error:
            logging.warning("Cryptomnesia: %s", error)
    return [*found, demo_calibration()]


def _names() -> list[str]:
    try:
        names = folder_paths.get_filename_list(FOLDER)
    except FileNotFoundError:  # ComfyUI remembers a folder that was deleted meanwhile
        folder_paths.filename_list_cache.pop(FOLDER, None)
        names = folder_paths.get_filename_list(FOLDER)
    return [name for name in names if name.endswith(ENDING)]


def _path(name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise(FOLDER, name))
