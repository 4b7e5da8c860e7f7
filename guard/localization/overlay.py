"""One location as a picture for people: the image, the map beside it, a colour scale and what it all means.

The masked area is outlined in two tones, so that the line is seen on any ground.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..drawing import INK, SCALE, SOFT, Pixels, blank, colours, draw_scale, wrapped, write
from ..errors import require

if TYPE_CHECKING:
    from .location import Location

EDGE, LIGHT = (20, 18, 16), (255, 255, 255)
MARGIN, GAP, LINE = 20, 16, 19
DIMMED = 0.42  # brightness outside the mask


def overlay(location: "Location", width: int) -> Any:
    """Returns a Pillow image; each panel is at least `width` pixels wide. See `Location.overlay`."""
    pillow = require("PIL.Image", "diffusers")
    picture = np.round(location.image.permute(1, 2, 0).numpy().clip(0, 1) * 255).astype(np.uint8)
    height, columns = picture.shape[:2]
    scale = max(1, -(-width // columns))
    size = columns * scale, height * scale
    mask = _enlarged(pillow, location.mask, size)
    heat = np.asarray(pillow.fromarray(location.map.numpy()).resize(size, 3))  # bicubic
    top = max(location.map.max().item(), 1e-12)
    shown = np.asarray(pillow.fromarray(picture).resize(size, 0 if columns <= 128 else 3))
    panels = [_outlined(_dimmed(shown, mask), mask), _outlined(colours(heat / top), mask)]

    legend = [line for words in legend_of(location) for line in wrapped(words, 2 * size[0] + GAP, 13)]
    top_of_panels, scale_at = MARGIN + 26, MARGIN + 2 * size[0] + 2 * GAP
    below = top_of_panels + size[1] + 14
    canvas, draw = blank(scale_at + SCALE + 46 + MARGIN, below + LINE * len(legend) + MARGIN)
    for i, (title, panel) in enumerate(zip(titles(location), panels, strict=True)):
        x = MARGIN + i * (size[0] + GAP)
        write(draw, (x, MARGIN), title, 15, INK)
        canvas.paste(pillow.fromarray(panel), (x, top_of_panels))
    _scale(draw, (scale_at, top_of_panels), size[1], top, location)
    for i, text in enumerate(legend):
        write(draw, (MARGIN, below + LINE * i), text, 13, INK if i == 0 else SOFT)
    return canvas


def titles(location: "Location") -> tuple[str, str]:
    """Returns the titles of the two panels."""
    share = location.share
    if share is None:
        return "the image (no verdict: no mask)", "map: how sharply the prompt pins it down"
    if not share:
        return "the image (clear: empty mask)", "map: how sharply the prompt pins it down"
    return f"likely reproduced: {100 * share:.0f} % of the image", "map: how sharply the prompt pins it down"


def legend_of(location: "Location") -> list[str]:
    """Returns sentences that say how to read the picture; the first is the result."""
    report, lines = location.report, []
    if report.p_value is not None:
        lines.append(
            f"The prompt is {'likely memorized' if report.memorized else 'clear'} (p = {report.p_value:.3g}; of benign "
            f"prompts at most {100 * (report.alpha or 0):.3g} % are flagged)."
        )
    else:
        lines.append(f"No verdict: {location.reason}.")
    if location.share:
        lines.append(
            "Mask: where the model finds the same again from other noise and the map is strong, along the edges there."
            if location.threshold is None
            else f"Mask: where the map is above half of its peak, {location.threshold:.3g}."
        )
    lines.append(
        "Colours: how much sharper the prompt makes the model's density (curvature difference, 1 / variance of the "
        "latent). They show where, not whether: an ordinary prompt has bright places, too."
    )
    if location.note:
        lines.append(location.note[0].upper() + location.note[1:] + ".")
    return lines


def _enlarged(pillow: Any, mask: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    if mask is None:
        return np.zeros(size[::-1], bool)
    return np.asarray(pillow.fromarray(mask.numpy().astype(np.uint8) * 255).resize(size, 0)) > 127


def _dimmed(picture: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The picture, darker and greyer outside the mask; unchanged where the mask is empty."""
    if not mask.any():
        return picture
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    dark = (0.5 * grey + 0.5 * picture) * DIMMED
    return np.where(mask[..., None], picture, dark).astype(np.uint8)


def _outlined(picture: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The picture with a light line inside the mask's border and a dark one outside."""
    if not mask.any():
        return picture
    inside, outside = mask & _grown(~mask, 2), ~mask & _grown(mask, 2)
    lined = picture.copy()
    lined[inside], lined[outside] = LIGHT, EDGE
    return lined


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """True within `by` pixels of the mask, along rows and columns; the picture's frame is no border."""
    for _ in range(by):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask


def _scale(draw: Any, corner: tuple[int, int], height: int, top: float, location: "Location") -> None:
    """The colour scale, with a tick at nothing, at the threshold and at the highest value."""
    x, y = corner
    draw_scale(draw, corner, height)
    ticks = [(0.0, SOFT), (top, SOFT)]
    if location.share and location.threshold is not None:
        ticks.append((location.threshold, INK))
    for value, colour in ticks:
        level = y + round((height - 1) * (1 - min(1.0, value / top)))
        draw.line([(x + SCALE, level), (x + SCALE + 5, level)], colour, width=2)
        write(draw, (x + SCALE + 8, min(max(level - 8, y - 4), y + height - 14)), f"{value:.3g}", 13, colour)
