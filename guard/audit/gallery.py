"""Pictures for the rows that a report shows apart: made by the model, with a memorization map, or from disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.sampling import TextToImage
from ..drawing import colours
from ..errors import CryptomnesiaError, InputError, require
from ..guard import Guard
from ..images import UNREADABLE, open_image
from ..progress import Progress
from ..protocols import PipelineDenoiser
from ..report import MemorizationReport

if TYPE_CHECKING:
    from ..localization import Location
    from .page import Exhibit

SEED = 0
LARGEST = 320  # pixels of a side in the report
DARKEST = 0.45  # of the map, where the image is black

Pixels = NDArray[np.uint8]


def generated(
    exhibits: Sequence["Exhibit"],
    reports: Sequence[MemorizationReport],
    pipe: Any,
    progress: Progress | None = None,
) -> list["Exhibit"]:
    """Adds the image that the pipeline makes of each prompt, and a map of where it is likely memorized.

    Where a map cannot be had, the image stands alone and the note says why; where no image can be had, the note alone
    is added.

    Args:
        exhibits: The rows to show.
        reports: What the check said of each exhibit's prompt, in the same order.
        pipe: A diffusers pipeline.
        progress: Called with the numbers of exhibits done and of all.

    Returns:
        The exhibits in the same order, with pictures or a note.

    Raises:
        InputError: The pipeline is of no supported family.
        MissingPackage: Pillow is not installed.
    """
    require("PIL.Image", "diffusers")
    guard, illustrated = Guard(pipe), []
    for exhibit, report in zip(exhibits, reports, strict=True):
        illustrated.append(_generated(guard, exhibit, report))
        if progress is not None:
            progress(len(illustrated), len(exhibits))
    return illustrated


def _generated(guard: Guard, exhibit: "Exhibit", report: MemorizationReport) -> "Exhibit":
    try:
        location = guard.locate(exhibit.text, seed=SEED, report=report)
    except CryptomnesiaError as reason:
        return _plain(guard, exhibit, f"no map: {reason}")
    image = _pixels(location.image.permute(1, 2, 0).numpy())
    heading = "likely memorized area" if location.share else "where the prompt pulls"
    pictures = [(thumbnail(image), f"seed {SEED}"), (thumbnail(heat(location, image)), heading)]
    area = "" if not location.share else f"{100 * location.share:.0f} % of the image likely memorized"
    return replace(exhibit, pictures=pictures, note=area or exhibit.note)


def _plain(guard: Guard, exhibit: "Exhibit", why: str) -> "Exhibit":
    """The exhibit with an image, but no map; the note says why."""
    if not isinstance(guard.denoiser, PipelineDenoiser):
        return replace(exhibit, note=why)
    try:
        made = TextToImage(guard.denoiser.pipe).images([exhibit.text], [SEED])[0]
    except (CryptomnesiaError, TypeError, RuntimeError) as error:  # whatever a pipeline makes of an odd prompt
        return replace(exhibit, note=f"no image: {' '.join(str(error).split())[:200]}")
    return replace(exhibit, pictures=[(thumbnail(_pixels(made)), f"seed {SEED}")], note=why)


def heat(location: "Location", image: Pixels) -> Pixels:
    """Returns the map in colours, brightest where the image is likeliest memorized, over its light and shade.

    Args:
        location: Where the image is likely memorized, with a map.
        image: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Raises:
        MissingPackage: Pillow is not installed.
    """
    height, width = image.shape[:2]
    pillow = require("PIL.Image", "diffusers")
    values = np.asarray(pillow.fromarray(location.map.numpy()).resize((width, height), pillow.Resampling.BICUBIC))
    light = DARKEST + (1 - DARKEST) * image.mean(2, keepdims=True) / 255
    return _pixels(colours(values / max(float(values.max()), 1e-12)) / 255 * light)


def from_disk(exhibits: Sequence["Exhibit"], folder: Path) -> list["Exhibit"]:
    """Returns the exhibits with the images that their texts, paths in `folder`, name; one that is gone has a note."""
    illustrated = []
    for exhibit in exhibits:
        try:
            pixels = np.asarray(open_image(folder / exhibit.text).convert("RGB"))
        except (InputError, *UNREADABLE):
            illustrated.append(replace(exhibit, note="the image cannot be read any more"))
            continue
        illustrated.append(
            replace(exhibit, pictures=[(thumbnail(pixels), f"{pixels.shape[1]}x{pixels.shape[0]} pixels")])
        )
    return illustrated


def thumbnail(image: Pixels) -> Pixels:
    """Returns the image (H, W, 3) uint8 with no side over LARGEST pixels, without metadata."""
    pillow = require("PIL.Image", "diffusers")
    picture = pillow.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def _pixels(values: Any) -> Pixels:
    return np.round(np.asarray(values, np.float64).clip(0, 1) * 255).astype(np.uint8)
