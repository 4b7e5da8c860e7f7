"""An image beside the reference that it is like, as pictures for people; Pillow images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..drawing import INK, LINE, MARGIN, SOFT, blank, cut, wrapped, write, write_lines
from ..errors import require
from ..printable import printable
from .pictures import read
from .result import NONE, shown_first

if TYPE_CHECKING:
    from .result import Comparison, ImageComparison

GAP, ROW, CAPTION = 16, 19, 24
DIMMED = 0.45  # brightness outside the region
EDGE, LIGHT = (20, 18, 16), (255, 255, 255)
TALLEST = 1.2  # of a panel's width
MOST = 8  # images of an overview


def comparison_plot(image: "ImageComparison", *, width: int = 760) -> Any:
    """Draws an image and its nearest reference side by side, the part that is alike outlined.

    Args:
        image: What is shown.
        width: Width of the picture in pixels.

    Returns:
        A Pillow image.

    Raises:
        InputError: One of the files is not there any more.
    """
    side = (width - 2 * MARGIN - GAP) // 2
    mine, theirs = panels(image, side)
    words = [line for note in image.notes() for line in wrapped(note, width - 2 * MARGIN, 12)]
    tall = max(panel.height for panel in (mine, theirs) if panel is not None)
    top = MARGIN + 34
    canvas, draw = blank(width, top + CAPTION + tall + 14 + ROW * len(words) + MARGIN)
    write(draw, (MARGIN, MARGIN - 6), cut(title(image), width - 2 * MARGIN, 17), 17, INK)
    right = MARGIN + side + GAP
    write(draw, (MARGIN, top), cut(f"image: {_name(image.name)}", side, 13), 13, SOFT)
    canvas.paste(mine, (MARGIN, top + CAPTION))
    if theirs is not None:
        match = image.nearest[0]
        how = "nearest reference" if match.kind == NONE else "reference"
        flipped = ", flipped" if match.flipped else ""
        write(draw, (right, top), cut(f"{how}{flipped}: {_name(match.reference)}", side, 13), 13, SOFT)
        canvas.paste(theirs, (right, top + CAPTION))
    write_lines(draw, (MARGIN, top + CAPTION + tall + 14), words, 12, SOFT, apart=ROW)
    return canvas


def overview_plot(comparison: "Comparison", *, width: int = 760) -> Any:
    """Draws the images that are most like references below each other, with the outcome above. Raises as the other."""
    shown = shown_first(comparison.copies or comparison.images)[:MOST]
    sheets = [comparison_plot(image, width=width) for image in shown]
    lines = [line for note in comparison.notes() for line in wrapped(note, width - 2 * MARGIN, 12)]
    above = MARGIN + 30 + ROW * len(lines) + 12
    canvas, draw = blank(width, above + sum(sheet.height for sheet in sheets))
    write(draw, (MARGIN, MARGIN - 6), comparison.headline(), 19, INK)
    write_lines(draw, (MARGIN, MARGIN + 26), lines, 12, SOFT, apart=ROW)
    for sheet in sheets:
        canvas.paste(sheet, (0, above))
        draw.line([(MARGIN, above), (width - MARGIN, above)], LINE)
        above += sheet.height
    return canvas


def title(image: "ImageComparison") -> str:
    """Returns the outcome with its p-value, in one line."""
    return image.headline() + ("" if image.p_value is None else f"   p = {image.p_value:.2g}")


def panels(image: "ImageComparison", side: int) -> tuple[Any, Any]:
    """Returns the image, what is alike outlined, and its nearest reference as it is compared; `side` pixels wide.

    The second is None where there is no reference to show.
    """
    picture = read(image._item).image
    match = image.nearest[0] if image.nearest else None
    mine = fitted(picture, side)
    if match is None:
        return mine, None
    if match.region is not None and 0 < (match.share or 0) < 1:
        mine = _outlined(mine, match.region)
    theirs = read(match._item).image
    if match.flipped:
        theirs = theirs.transpose(require("PIL.Image", "provenance").Transpose.FLIP_LEFT_RIGHT)
    return mine, fitted(theirs, side)


def fitted(picture: Any, side: int) -> Any:
    """Returns a Pillow image in a panel of that width, not much higher than wide; tiny ones by whole pixels."""
    resampling = require("PIL.Image", "provenance").Resampling
    scale = min(side / picture.width, TALLEST * side / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, resampling.NEAREST if max(picture.size) <= 128 else resampling.LANCZOS)


def _outlined(panel: Any, region: NDArray[np.bool_]) -> Any:
    """A panel with what is not in the region dimmed, and the region outlined in two tones."""
    pillow = require("PIL.Image", "provenance")
    mask = np.asarray(pillow.fromarray(region.astype(np.uint8) * 255).resize(panel.size, 0)) > 127
    pixels = np.asarray(panel, np.float32)
    pixels = np.where(mask[..., None], pixels, pixels * DIMMED).astype(np.uint8)
    for reach, colour in ((3, EDGE), (1, LIGHT)):
        pixels[_grown(mask, reach) & ~_grown(mask, reach - 2 if reach > 2 else 0)] = colour
    return pillow.fromarray(pixels)


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    grown = mask.copy()
    for _ in range(by):
        grown[1:] |= grown[:-1].copy()
        grown[:-1] |= grown[1:].copy()
        grown[:, 1:] |= grown[:, :-1].copy()
        grown[:, :-1] |= grown[:, 1:].copy()
    return grown


def _name(path: str) -> str:
    return printable(Path(path).name, 80)
