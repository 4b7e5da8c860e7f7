"""Calibration files in ComfyUI's models folder, and which of them belongs to a model."""

import logging
from typing import Any

from comfy_api.latest import io

from ..guard.adapters.comfyui import ComfyDenoiser
from ..guard.calibration import Calibration
from ..guard.demo import demo_calibration
from ..guard.errors import CalibrationError
from . import folder

ENDING = ".calibration.json"
AUTOMATIC, NONE = "automatic", "none"


class CalibratedNode(io.ComfyNode):
    """A node that is given a calibration's name, and runs again when a file that this may mean has changed."""

    @classmethod
    def fingerprint_inputs(cls, calibration: str, **_: Any) -> Any:
        """Returns the state of those files: see `state`."""
        return state(calibration)


def choices(*, optional: bool = True) -> list[str]:
    """Returns the choices of a node's widget; "none" only where the node can do without."""
    return [AUTOMATIC, *([NONE] if optional else []), *folder.names(ENDING)]


def state(choice: str) -> list[tuple[str, float]]:
    """Returns the files that the choice may mean, with their times: ComfyUI runs a node again when one changes."""
    return folder.state(name for name in folder.names(ENDING) if choice in (AUTOMATIC, name))


def find(
    choice: str, denoiser: ComfyDenoiser, draws: int | None, shape: tuple[int, int, int]
) -> tuple[Calibration | None, str | None]:
    """Finds the calibration of a model.

    Args:
        choice: A file's name, "automatic" or "none".
        denoiser: The model.
        draws: The number of draws that must fit, or None for any.
        shape: The shape of the latent, (C, H, W).

    Returns:
        The calibration and None, or None and the reason why there is none.

    Raises:
        CalibrationError: The file that was chosen is malformed, or was made for something else.
    """
    if choice == NONE:
        return None, "no calibration was chosen: there is a score, but no verdict"
    if denoiser.unreadable:
        return None, unreadable(denoiser)
    if choice != AUTOMATIC:
        chosen = Calibration.load(folder.path_of(choice))
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


def unreadable(denoiser: ComfyDenoiser) -> str:
    """Returns why no calibration can belong to a model with patches that cannot be compared."""
    names = ", ".join(denoiser.unreadable)
    return f"patches of this model cannot be compared with those of a calibration: {names}: there is no verdict"


def _all() -> list[Calibration]:
    """Returns those in the folder, newest first, then the built-in model's own."""
    loaded = []
    for path in sorted((folder.path_of(name) for name in folder.names(ENDING)), key=lambda path: -path.stat().st_mtime):
        try:
            loaded.append(Calibration.load(path))
        except CalibrationError as error:
            logging.warning("Cryptomnesia: %s", error)
    return [*loaded, demo_calibration()]
