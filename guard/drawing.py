"""Text and blank paper for pictures that people read, with Pillow and its own font."""

from typing import Any

from .errors import require
from .localization.overlay import INK, LINE, PAPER, SOFT

__all__ = ["INK", "LINE", "MARGIN", "SOFT", "blank", "cut", "text_width", "wrapped", "write"]
MARGIN = 24  # pixels around everything


def blank(width: int, height: int) -> tuple[Any, Any]:
    """A blank Pillow image and what draws on it."""
    image = require("PIL.Image", "provenance").new("RGB", (width, height), PAPER)
    return image, require("PIL.ImageDraw", "provenance").Draw(image)


def write(draw: Any, place: tuple[float, float], words: str, size: int, colour: Any, anchor: str = "la") -> None:
    """One line; the anchor says which of its points lies at the place, as Pillow has it."""
    font = _font(size)
    if not hasattr(font, "getmetrics"):  # bitmap fonts know no anchors
        draw.text(place, words, colour, font=font)
        return
    draw.text(place, words, colour, font=font, anchor=anchor)


def text_width(words: str, size: int) -> int:
    """In pixels."""
    return round(_font(size).getlength(words))


def cut(words: str, room: int, size: int) -> str:
    """As much as there is room for."""
    if text_width(words, size) <= room:
        return words
    while words and text_width(words + "...", size) > room:
        words = words[:-1]
    return words + "..."


def wrapped(words: str, room: int, size: int) -> list[str]:
    """Lines that fit, broken between words; a word that is too long is cut."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [cut(line, room, size) for line in lines]


def _font(size: int) -> Any:
    fonts = require("PIL.ImageFont", "provenance")
    try:
        return fonts.load_default(size)
    except (TypeError, ImportError, OSError):  # Pillow before 10.1, or without FreeType
        return fonts.load_default()
