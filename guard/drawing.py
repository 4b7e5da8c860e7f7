"""Pictures that people read, with Pillow and its own font: palette, text, bars and colour scales.

Maps are coloured in viridis (van der Walt & Smith, matplotlib): equally spaced to the eye, rising in brightness, and
told apart by the colour-blind.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import require

Pixels = NDArray[np.uint8]
VIRIDIS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 "
    "fde725"
)
PAPER, INK, SOFT, LINE = (255, 254, 251), (35, 33, 29), (106, 101, 91), (200, 194, 179)
STRONG, PALE, GROUND = (33, 104, 109), (160, 188, 186), (240, 237, 230)  # bars: the answer's, the others', the room's
MARGIN = 24  # pixels around everything
SCALE, BAR = 16, 30  # pixels: width of a colour scale, height of a row with a bar


def colours(values: NDArray[np.floating]) -> Pixels:
    """Returns Viridis colours (..., 3) of values (...) in [0, 1]; what lies outside is cut off, and NaN counts as 0."""
    table = np.array([list(bytes.fromhex(code)) for code in VIRIDIS.split()], dtype=np.float64)
    at = np.clip(np.nan_to_num(values), 0, 1) * (len(table) - 1)
    low = np.minimum(at.astype(int), len(table) - 2)
    rest = (at - low)[..., None]
    return np.round(table[low] * (1 - rest) + table[low + 1] * rest).astype(np.uint8)


def blank(width: int, height: int) -> tuple[Any, Any]:
    """Returns a blank Pillow image of that size in pixels, and what draws on it."""
    image = require("PIL.Image", "provenance").new("RGB", (width, height), PAPER)
    return image, require("PIL.ImageDraw", "provenance").Draw(image)


def write(draw: Any, position: tuple[float, float], words: str, size: int, colour: Any, anchor: str = "la") -> None:
    """Writes one line; the anchor says which of its points lies at the position, as Pillow has it."""
    font = _font(size)
    if not hasattr(font, "getmetrics"):  # bitmap fonts know no anchors
        draw.text(position, words, colour, font=font)
        return
    draw.text(position, words, colour, font=font, anchor=anchor)


def write_lines(
    draw: Any, position: tuple[float, float], lines: Sequence[str], size: int, colour: Any, *, apart: int
) -> None:
    """Writes lines below each other, from the position downwards, so many pixels apart."""
    x, y = position
    for number, line in enumerate(lines):
        write(draw, (x, y + apart * number), line, size, colour)


def text_width(words: str, size: int) -> int:
    """Returns how many pixels a line is wide."""
    return round(_font(size).getlength(words))


def cut(words: str, room: int, size: int) -> str:
    """Returns as much of a line as has room in so many pixels, with dots where something was left out."""
    if text_width(words, size) <= room:
        return words
    while words and text_width(words + "...", size) > room:
        words = words[:-1]
    return words + "..."


def wrapped(words: str, room: int, size: int) -> list[str]:
    """Returns lines that fit, broken between words; a word that is too long is cut."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut(line, room, size) for line in lines]


def draw_bar(
    draw: Any,
    position: tuple[int, int],
    room: int,
    filled: int | None,
    name: str,
    value: str,
    *,
    colour: Any,
    chosen: bool,
) -> None:
    """Draws a row of a bar chart: a name that ends left of the position, a bar, and its value.

    Args:
        draw: What draws, as `blank` gives it.
        position: Where the bar's row begins, which is BAR pixels high.
        room: How long a bar can get, in pixels.
        filled: How long this one is; None for no bar.
        name, value: Written before it and behind it.
        colour: The bar's colour.
        chosen: Whether this row is the answer, whose words are darker.
    """
    (left, y), words = position, INK if chosen else SOFT
    write(draw, (left - 12, y + BAR // 2), name, 14, words, "rm")
    draw.rectangle([left, y + 5, left + room, y + BAR - 6], fill=GROUND)
    if filled is not None:
        draw.rectangle([left, y + 5, left + filled, y + BAR - 6], fill=colour)
    write(draw, (left + room + 10, y + BAR // 2), value, 14, words, "lm")


def draw_scale(draw: Any, position: tuple[int, int], height: int) -> None:
    """Draws the colours of a map from the highest, at the position, down to nothing, SCALE pixels wide."""
    x, y = position
    for i, colour in enumerate(colours(np.linspace(1, 0, height))):
        draw.line([(x, y + i), (x + SCALE, y + i)], tuple(int(v) for v in colour))
    draw.rectangle([x, y, x + SCALE, y + height - 1], outline=LINE)


def _font(size: int) -> Any:
    fonts = require("PIL.ImageFont", "provenance")
    try:
        return fonts.load_default(size)
    except (TypeError, ImportError, OSError):  # Pillow before 10.1, or without FreeType
        return fonts.load_default()
