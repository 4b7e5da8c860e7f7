"""Pictures that people can read: a signature as heat maps, an attribution as bars; Pillow images."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..drawing import (
    BAR,
    INK,
    LINE,
    MARGIN,
    PALE,
    SCALE,
    SOFT,
    STRONG,
    blank,
    colours,
    cut,
    draw_bar,
    draw_scale,
    text_width,
    wrapped,
    write,
    write_lines,
)
from ..errors import InputError, require
from ..signals.spectral import PLANS, RINGS, SCALES, Plan, check_plan, length

if TYPE_CHECKING:
    from .attribute import Attribution

CELL, GAP = 18, 18  # pixels of a map's cell, and between maps
NONE_COLOUR = (150, 143, 130)  # the bar of "none of these", where that is the answer


def signature_plot(signature: Tensor, *, plan: Plan = "5step", title: str = "Spectral signature") -> Any:
    """Draws one signature, or the mean of several, as heat maps: a row of maps per noise scale, a map per noise level.

    In each map, a row is the ring that the noise was confined to, a column the ring of the denoiser's error, from low
    frequencies to high; the colour is the share of the error's energy there, so that each row adds up to 1.

    Args:
        signature: One signature (N,), or several (n, N).
        plan: The plan that it was measured with.
        title: First line of the picture.

    Returns:
        A Pillow image.

    Raises:
        InputError: The numbers are no signature of that plan.
        MissingPackage: Pillow is not installed.
    """
    check_plan(plan)
    values = signature.double().cpu()
    values = values.mean(0) if values.ndim == 2 else values
    steps = PLANS[plan]
    if tuple(values.shape) != (length(plan),):
        raise InputError(f"a signature of plan {plan!r} has {length(plan)} numbers, not {tuple(signature.shape)}")
    maps = values.view(len(SCALES), len(steps), RINGS, RINGS).numpy()
    size, top = CELL * RINGS, float(maps.max())
    left, above = MARGIN + 84, MARGIN + 84
    width = left + len(steps) * (size + GAP) + SCALE + 56 + MARGIN
    height = above + len(SCALES) * (size + GAP) + 70 + MARGIN
    above_words = "Which frequencies a denoiser gets wrong (columns) when the noise has one band only (rows)"
    below = (
        "Each map: one row per ring of the noise, one column per ring of the error; each row adds up to 100 %.",
        "Colour: share of the error's energy. Steps run from noisy to nearly clean.",
    )
    widest = max(text_width(above_words, 13), *(text_width(words, 12) for words in below))
    canvas, draw = blank(max(width, widest + 2 * MARGIN), height)
    write(draw, (MARGIN, MARGIN - 6), cut(title, canvas.width - 2 * MARGIN, 17), 17, INK)
    write(draw, (MARGIN, MARGIN + 20), above_words, 13, SOFT)
    for row, scale in enumerate(SCALES):
        y = above + row * (size + GAP)
        write(draw, (MARGIN, y + size // 2 - 9), f"noise x {scale:g}", 13, INK)
        write(draw, (left - 10, y + 9), "low", 11, SOFT, "rm")
        write(draw, (left - 10, y + size - 9), "high", 11, SOFT, "rm")
        for column in range(len(steps)):
            x = left + column * (size + GAP)
            _heat(canvas, draw, (x, y), maps[row, column] / max(top, 1e-12))
            if row == 0:
                write(draw, (x + size // 2, above - 12), f"step {steps[column] + 1} of 50", 13, INK, "mm")
            if row == len(SCALES) - 1:
                write(draw, (x, y + size + 12), "low", 11, SOFT, "lm")
                write(draw, (x + size // 2, y + size + 12), "ring of the error", 11, SOFT, "mm")
                write(draw, (x + size, y + size + 12), "high", 11, SOFT, "rm")
    _scale(draw, (left + len(steps) * (size + GAP), above), len(SCALES) * (size + GAP) - GAP, top)
    foot = above + len(SCALES) * (size + GAP) + 22
    write_lines(draw, (MARGIN, foot), below, 12, SOFT, apart=20)
    return canvas


def attribution_plot(attribution: "Attribution", *, width: int = 620) -> Any:
    """Draws the probabilities of all candidates and of "none of these" as bars, largest first, with what they rest on.

    Without a verdict there are no bars, and the reason stands in their place.

    Args:
        attribution: What is shown.
        width: Width of the picture in pixels.

    Returns:
        A Pillow image.

    Raises:
        MissingPackage: Pillow is not installed.
    """
    rows = sorted(attribution.probabilities.items(), key=lambda item: -item[1])
    notes = [line for note in attribution.notes() for line in wrapped(note, width - 2 * MARGIN, 12)]
    names = min(max((text_width(name, 14) for name, _ in rows), default=0), width // 2)
    head = wrapped(attribution.headline(), width - 2 * MARGIN, 17)
    top = MARGIN + 12 + 24 * len(head)  # of the bars
    canvas, draw = blank(width, MARGIN + 4 + top + len(rows) * BAR + 14 + 19 * len(notes))
    write_lines(draw, (MARGIN, MARGIN - 6), head, 17, INK, apart=24)
    left = MARGIN + names + 14
    room = width - left - MARGIN - 58
    for number, (name, probability) in enumerate(rows):
        chosen = name == attribution.decision
        colour = (STRONG if name in attribution.distances else NONE_COLOUR) if chosen else PALE
        filled = round(room * probability) or None
        corner, shown = (left, top + number * BAR), cut(name, names, 14)
        draw_bar(draw, corner, room, filled, shown, percent(probability), colour=colour, chosen=chosen)
    if rows:
        draw.line([(left, top), (left, top + len(rows) * BAR)], LINE)
    write_lines(draw, (MARGIN, top + len(rows) * BAR + 14), notes, 12, SOFT, apart=19)
    return canvas


def percent(probability: float) -> str:
    """Returns a probability in [0, 1] in percent, in words that do not promise certainty."""
    if probability < 0.005:
        return "< 1 %"
    return "> 99 %" if probability > 0.995 else f"{100 * probability:.0f} %"


def _heat(canvas: Any, draw: Any, corner: tuple[int, int], values: np.ndarray) -> None:
    cells = np.kron(colours(values), np.ones((CELL, CELL, 1), np.uint8))
    canvas.paste(require("PIL.Image", "provenance").fromarray(cells), corner)
    x, y = corner
    draw.rectangle([x - 1, y - 1, x + CELL * RINGS, y + CELL * RINGS], outline=LINE)


def _scale(draw: Any, corner: tuple[int, int], height: int, top: float) -> None:
    x, y = corner
    draw_scale(draw, corner, height)
    for share in (0, 0.25, 0.5, 0.75, 1):
        level = y + round((height - 1) * (1 - share))
        draw.line([(x + SCALE, level), (x + SCALE + 5, level)], SOFT)
        write(draw, (x + SCALE + 9, level), f"{100 * share * top:.0f} %", 12, SOFT, "lm")
