"""A model's distances to those of a pool as bars, with the line from which none is its parent; a Pillow image."""

from typing import TYPE_CHECKING, Any

from ..drawing import (
    BAR,
    INK,
    LINE,
    MARGIN,
    PALE,
    SOFT,
    STRONG,
    blank,
    cut,
    draw_bar,
    text_width,
    wrapped,
    write,
    write_lines,
)

if TYPE_CHECKING:
    from .parentage import Parentage

NOTE = 19  # pixels from line to line
LIMIT = (179, 38, 30)


def parentage_plot(parentage: "Parentage", *, width: int = 620) -> Any:
    """Draws the distances to all models, closest first; bars that end left of the line are close enough for a parent.

    Args:
        parentage: What is shown.
        width: Width of the picture in pixels.

    Returns:
        A Pillow image.

    Raises:
        MissingPackage: Pillow is not installed.
    """
    rows, threshold = sorted(parentage.distances.items(), key=lambda item: item[1]), parentage.null_threshold
    notes = [line for note in parentage.notes() for line in wrapped(note, width - 2 * MARGIN, 12)]
    above, names = MARGIN + 54, min(max(text_width(name, 14) for name, _ in rows), width // 2)
    below = above + len(rows) * BAR
    image, draw = blank(width, below + 16 + NOTE * len(notes) + MARGIN)
    write(draw, (MARGIN, MARGIN - 6), cut(parentage.headline(), width - 2 * MARGIN, 17), 17, INK)
    left = MARGIN + names + 14
    room = width - left - MARGIN - 52
    most = 1.05 * max([distance for _, distance in rows] + [threshold or 0.0]) or 1.0
    for number, (name, distance) in enumerate(rows):
        chosen = name == parentage.parent
        corner, shown = (left, above + number * BAR), cut(name, names, 14)
        colour, filled = STRONG if chosen else PALE, round(room * distance / most)
        draw_bar(draw, corner, room, filled, shown, f"{distance:.2f}", colour=colour, chosen=chosen)
    draw.line([(left, above), (left, below)], LINE)
    if threshold is not None:
        x = left + round(room * threshold / most)
        draw.line([(x, above - 4), (x, below)], LIMIT, width=2)
        side = "l" if x < left + room / 2 else "r"
        write(draw, (x, above - 12), f"a parent is left of {threshold:.2f}", 12, LIMIT, f"{side}m")
    write_lines(draw, (MARGIN, below + 16), notes, 12, SOFT, apart=NOTE)
    return image
