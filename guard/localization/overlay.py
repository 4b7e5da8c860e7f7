"""One location as a picture for people: the image, the map beside it, a colour bar and what it all means.

Colours are viridis (van der Walt & Smith, matplotlib): equally spaced to the eye, rising in brightness, and told apart
by the colour-blind. The lit part is outlined in two tones, so that the line is seen on any ground.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import require

if TYPE_CHECKING:
    from .location import Location

Pixels = NDArray[np.uint8]
VIRIDIS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 "
    "fde725"
)
PAPER, INK, SOFT, LINE = (255, 254, 251), (35, 33, 29), (106, 101, 91), (200, 194, 179)
EDGE, LIGHT = (20, 18, 16), (255, 255, 255)
MARGIN, GAP, BAR = 20, 16, 16
DIMMED = 0.42  # brightness of what is not lit


def colours(values: NDArray[np.floating]) -> Pixels:
    """Viridis of values in [0, 1], (...) -> (..., 3)."""
    table = np.array([list(bytes.fromhex(code)) for code in VIRIDIS.split()], dtype=np.float64)
    at = np.clip(np.nan_to_num(values), 0, 1) * (len(table) - 1)
    low = np.minimum(at.astype(int), len(table) - 2)
    rest = (at - low)[..., None]
    return np.round(table[low] * (1 - rest) + table[low + 1] * rest).astype(np.uint8)


def overlay(location: "Location", width: int) -> Any:
    """A Pillow image; each panel is at least `width` pixels wide. See `Location.overlay`."""
    pillow, drawing = require("PIL.Image", "diffusers"), require("PIL.ImageDraw", "diffusers")
    picture = np.round(location.image.permute(1, 2, 0).numpy().clip(0, 1) * 255).astype(np.uint8)
    height, own = picture.shape[:2]
    scale = max(1, -(-width // own))
    size = own * scale, height * scale
    mask = _enlarged(pillow, location.mask, size)
    heat = np.asarray(pillow.fromarray(location.map.numpy()).resize(size, 3))  # bicubic
    top = max(location.map.max().item(), 1e-12)
    shown = np.asarray(pillow.fromarray(picture).resize(size, 0 if own <= 128 else 3))
    panels = [_outlined(_dimmed(shown, mask), mask), _outlined(colours(heat / top), mask)]

    fonts = [_font(large) for large in (15, 13)]
    legend = _wrapped(legend_of(location), fonts[1], 2 * size[0] + GAP)
    line = 19
    canvas_width = 2 * MARGIN + 2 * size[0] + 2 * GAP + BAR + 46
    top_of_panels = MARGIN + 26
    canvas = pillow.new("RGB", (canvas_width, top_of_panels + size[1] + 14 + line * len(legend) + MARGIN), PAPER)
    draw = drawing.Draw(canvas)
    for i, (title, panel) in enumerate(zip(titles(location), panels, strict=True)):
        x = MARGIN + i * (size[0] + GAP)
        draw.text((x, MARGIN), title, INK, font=fonts[0])
        canvas.paste(pillow.fromarray(panel), (x, top_of_panels))
    _bar(draw, (MARGIN + 2 * size[0] + 2 * GAP, top_of_panels, size[1]), top, location, fonts[1])
    for i, text in enumerate(legend):
        draw.text((MARGIN, top_of_panels + size[1] + 14 + line * i), text, INK if i == 0 else SOFT, font=fonts[1])
    return canvas


def titles(location: "Location") -> tuple[str, str]:
    """What stands above the two panels."""
    share = location.share
    if share is None:
        return "the image (no verdict: nothing is lit)", "map: how sharply the prompt pins it down"
    if not share:
        return "the image (clear: nothing is lit)", "map: how sharply the prompt pins it down"
    return f"likely recited: {100 * share:.0f} % of the image", "map: how sharply the prompt pins it down"


def legend_of(location: "Location") -> list[str]:
    """Sentences that say how to read the picture; the first is the result."""
    report, lines = location.report, []
    if report.p_value is not None:
        lines.append(
            f"The prompt is {'likely memorized' if report.memorized else 'clear'} (p = {report.p_value:.3g}; of benign "
            f"prompts at most {100 * (report.alpha or 0):.3g} % are flagged)."
        )
    else:
        lines.append(f"No verdict: {location.reason}.")
    if location.share:
        lines.append(f"Lit: where the map is above half of its peak, {location.threshold:.3g}.")
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
    """Darker and greyer wherever nothing is lit, if anything is."""
    if not mask.any():
        return picture
    grey = picture.mean(2, keepdims=True).repeat(3, 2)
    dark = (0.5 * grey + 0.5 * picture) * DIMMED
    return np.where(mask[..., None], picture, dark).astype(np.uint8)


def _outlined(picture: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """With a light line inside the mask's border and a dark one outside."""
    if not mask.any():
        return picture
    inside, outside = mask & _grown(~mask, 2), ~mask & _grown(mask, 2)
    found = picture.copy()
    found[inside], found[outside] = LIGHT, EDGE
    return found


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """True within `by` pixels of the mask, along rows and columns; the picture's frame is no border."""
    for _ in range(by):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask


def _bar(draw: Any, place: tuple[int, int, int], top: float, location: "Location", font: Any) -> None:
    """The colour bar, with a tick at nothing, at the threshold and at the highest value."""
    x, y, height = place
    for i, colour in enumerate(colours(np.linspace(1, 0, height))):
        draw.line([(x, y + i), (x + BAR, y + i)], tuple(int(v) for v in colour))
    draw.rectangle([x, y, x + BAR, y + height - 1], outline=LINE)
    ticks = [(0.0, SOFT), (top, SOFT)]
    if location.share:
        ticks.append((location.threshold, INK))
    for value, colour in ticks:
        level = y + round((height - 1) * (1 - min(1.0, value / top)))
        draw.line([(x + BAR, level), (x + BAR + 5, level)], colour, width=2)
        draw.text((x + BAR + 8, min(max(level - 8, y - 4), y + height - 14)), f"{value:.3g}", colour, font=font)


def _font(size: int) -> Any:
    fonts = require("PIL.ImageFont", "diffusers")
    try:
        return fonts.load_default(size)
    except (TypeError, ImportError, OSError):  # Pillow before 10.1, or without FreeType
        return fonts.load_default()


def _wrapped(sentences: list[str], font: Any, width: int) -> list[str]:
    """Lines no wider than that many pixels; each sentence begins a new one."""
    lines = []
    for sentence in sentences:
        line = ""
        for word in sentence.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
