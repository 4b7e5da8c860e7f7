"""A training as a picture: the flagged share per epoch; a Pillow image."""

from collections.abc import Sequence
from typing import Any

from ..drawing import GROUND, INK, LINE, MARGIN, PALE, SOFT, STRONG, blank, cut, write
from ..errors import InputError
from .record import EpochRecord

LEFT, HEIGHT, ALARM = 52, 220, (176, 62, 44)


def monitor_plot(records: Sequence[EpochRecord], alpha: float, *, width: int) -> Any:
    """Draws the flagged share per epoch with its interval, what held-out images give, and the point of take-off.

    Args:
        records: What is shown, at least one that measured something.
        alpha: The share of held-out images that would be flagged.
        width: Width of the picture in pixels.

    Returns:
        A Pillow image; up = more images flagged.

    Raises:
        InputError: Nothing was measured.
        MissingPackage: Pillow is not installed.
    """
    there = [record for record in records if record.share is not None]
    if not there:
        raise InputError("there is nothing to draw: call the monitor first")
    off = next((record for record in there if record.took_off), None)
    image, draw = blank(width, HEIGHT + 3 * MARGIN + 40)
    title = "No sign of memorization" if off is None else f"Images are being memorized from epoch {off.epoch:g} on"
    write(draw, (MARGIN, MARGIN - 8), cut(title, width - 2 * MARGIN, 17), 17, INK)
    left, right, top, floor = LEFT, width - MARGIN, 2 * MARGIN + 10, 2 * MARGIN + 10 + HEIGHT
    first, last = there[0].epoch, there[-1].epoch
    span = (last - first) or 1.0

    def at(epoch: float, share: float) -> tuple[float, float]:
        return left + (epoch - first) / span * (right - left), floor - share * HEIGHT

    draw.rectangle([left, top, right, floor], fill=GROUND)
    for share in (0.0, 0.5, 1.0):
        draw.line([at(first, share), (right, at(first, share)[1])], LINE)
        write(draw, (left - 8, at(first, share)[1]), f"{share:.0%}", 12, SOFT, "rm")
    for record in there:
        (x, low), (_, high) = (at(record.epoch, edge) for edge in record.interval or (0.0, 0.0))
        draw.line([(x, low), (x, high)], PALE, width=5)
    draw.line([at(first, alpha), (right, at(first, alpha)[1])], SOFT)
    points = [at(record.epoch, record.share or 0.0) for record in there]
    draw.line(points, STRONG, width=2)
    for (x, y), record in zip(points, there, strict=True):
        colour = ALARM if record.took_off else STRONG
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    if off is not None:
        x = at(off.epoch, 0)[0]
        draw.line([(x, top), (x, floor)], ALARM)
    write(draw, (left, floor + 8), f"epoch {first:g}", 12, SOFT)
    write(draw, (right, floor + 8), f"{last:g}", 12, SOFT, "ra")
    words = (
        f"share of {there[-1].captions} trained images that are known better than all but {alpha:.0%} of held-out ones"
    )
    write(draw, (left, floor + 28), cut(words, right - left, 12), 12, SOFT)
    return image
