"""A test of membership as a picture: suspects and references over one scale; a Pillow image."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..drawing import INK, LINE, MARGIN, SOFT, STRONG, blank, wrapped, write, write_lines

if TYPE_CHECKING:
    from .result import MembershipTest

BINS, HEIGHT, ROW = 30, 110, 19
COLOURS = {"suspects": STRONG, "references": (191, 130, 60)}


def membership_plot(test: "MembershipTest", *, width: int = 680) -> Any:
    """Draws suspects above and references below, each as a histogram of its statistic with the mean.

    Args:
        test: What is shown.
        width: Width of the picture in pixels.

    Returns:
        A Pillow image; left = more trained on.

    Raises:
        MissingPackage: Pillow is not installed.
    """
    notes = [line for note in test.notes() for line in wrapped(note, width - 2 * MARGIN, 12)]
    sides = {"suspects": test.suspects.statistic, "references": test.references.statistic}
    image, draw = blank(width, MARGIN * 2 + 40 + 2 * (HEIGHT + 26) + 30 + ROW * len(notes))
    write(draw, (MARGIN, MARGIN - 6), test.headline(), 17, INK)
    edges = _edges(np.concatenate(list(sides.values())))
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in sides.items()}
    top, left, room = max(float(share.max()) for share in shares.values()), MARGIN, width - 2 * MARGIN
    for number, (name, share) in enumerate(shares.items()):
        floor = MARGIN + 40 + (number + 1) * (HEIGHT + 26) - 12
        write(draw, (left, floor - HEIGHT - 14), f"{name} ({len(sides[name])})", 13, COLOURS[name])
        for bin_number, height in enumerate(share / top * (HEIGHT - 16)):
            x = left + room * bin_number / BINS
            if height:
                draw.rectangle([x + 1, floor - height, x + room / BINS - 1, floor], fill=COLOURS[name])
        draw.line([(left, floor), (left + room, floor)], LINE)
        mean = left + room * float((sides[name].mean() - edges[0]) / (edges[-1] - edges[0]))
        draw.line([(mean, floor - HEIGHT + 2), (mean, floor)], INK)
        aside, side = (4, "l") if mean < left + room / 2 else (-4, "r")
        write(draw, (mean + aside, floor - HEIGHT + 7), "mean", 11, SOFT, f"{side}m")
    below = MARGIN + 40 + 2 * (HEIGHT + 26)
    write(draw, (left, below), "more like training images", 12, SOFT)
    write(draw, (left + room, below), "less", 12, SOFT, "ra")
    write_lines(draw, (left, below + 28), notes, 12, SOFT, apart=ROW)
    return image


def _edges(values: np.ndarray) -> np.ndarray:
    """The BINS + 1 edges of the bins, over the whole range."""
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1, BINS + 1)
