"""Which part of a picture is alike, once a reference is laid over it: correlation within small windows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from .local import Movement

LONG_SIDE = 128  # pixels in which parts are compared
WINDOW = 9  # pixels
ALIKE = 0.7  # correlation of a window whose picture is the same
LEVEL = 14.0  # of 255 that plain parts may differ, after brightness and contrast are brought together
PLAIN = 4.0  # levels by which pixels of a window must vary to be compared by correlation
Grey = NDArray[np.float32]


def alike(picture: Any, reference: Any, movement: Movement | None, flipped: bool) -> tuple[NDArray[np.bool_], float]:
    """Returns where a picture is like a reference, and how much it is there.

    Args:
        picture: A Pillow image.
        reference: A Pillow image.
        movement: How the picture lies in the reference, once it is flipped if it is; None where it fills it.
        flipped: Whether the picture is flipped.

    Returns:
        (h, w) bool over the picture, at most LONG_SIDE long; and the correlation with the reference there, in [-1, 1],
        0 where there is no such part.
    """
    transpose = require("PIL.Image", "provenance").Transpose.FLIP_LEFT_RIGHT
    shown = picture.transpose(transpose) if flipped else picture
    scale = min(1.0, LONG_SIDE / max(shown.size))
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    mine = _pixels(shown.resize(size, require("PIL.Image", "provenance").Resampling.BOX))
    theirs, there = _laid_over(reference, size, movement)
    mask = _windows_alike(mine, theirs, there)
    similarity = _correlation(mine[mask], theirs[mask]) if mask.any() else 0.0
    return np.ascontiguousarray(mask[:, ::-1] if flipped else mask), similarity


def _pixels(image: Any) -> Grey:
    return np.asarray(image, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _laid_over(reference: Any, size: tuple[int, int], movement: Movement | None) -> tuple[Grey, NDArray[np.bool_]]:
    """The reference in the picture's place, (h, w), and where there is something of it."""
    pillow = require("PIL.Image", "provenance")
    if movement is None:
        return _pixels(reference.resize(size, pillow.Resampling.BOX)), np.ones(size[::-1], np.bool_)
    # both in pixels: first smaller, so that nothing is skipped
    long = max(reference.size)
    shrink = min(1.0, LONG_SIDE / max(abs(movement.turn), 0.05) / long)
    small = reference.resize(
        (max(1, round(reference.width * shrink)), max(1, round(reference.height * shrink))), pillow.Resampling.BOX
    )
    turn, shift = movement.turn * max(small.size) / max(size), movement.shift * max(small.size)
    data = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    method, linear = pillow.Transform.AFFINE, pillow.Resampling.BILINEAR
    moved = small.transform(size, method, data, linear)
    there = pillow.new("L", small.size, 255).transform(size, method, data, pillow.Resampling.NEAREST)
    return _pixels(moved), np.asarray(there) > 0


def _windows_alike(mine: Grey, theirs: Grey, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where windows are alike: what has texture by its correlation, what is plain by its level."""
    if not there.any():
        return there
    theirs = _brought_together(mine, theirs, there)
    mean_a, mean_b = _mean(mine), _mean(theirs)
    spread_a = np.sqrt(np.maximum(_mean(mine**2) - mean_a**2, 0))
    spread_b = np.sqrt(np.maximum(_mean(theirs**2) - mean_b**2, 0))
    together = _mean(mine * theirs) - mean_a * mean_b
    textured = (spread_a > PLAIN) & (spread_b > PLAIN)
    correlation = together / np.maximum(spread_a * spread_b, 1e-6)
    plain = (spread_a <= PLAIN) & (spread_b <= PLAIN) & (np.abs(mean_a - mean_b) < LEVEL)
    found = np.where(textured, correlation > ALIKE, plain)
    # a window more or less is an accident
    return (_mean(found.astype(np.float32)) > 0.5) & there


def _brought_together(mine: Grey, theirs: Grey, there: NDArray[np.bool_]) -> Grey:
    """The other picture in this one's brightness and contrast, by the pixels in the middle of both."""
    a, b = mine[there], theirs[there]
    low, high = np.percentile(b, [25, 75])
    own_low, own_high = np.percentile(a, [25, 75])
    if high - low < PLAIN or own_high - own_low < PLAIN:
        return theirs + (np.median(a) - np.median(b))
    gain = float(np.clip((own_high - own_low) / (high - low), 0.5, 2.0))
    return (theirs - np.median(b)) * gain + np.median(a)


def _mean(values: Grey) -> Grey:
    """The mean over each pixel's window, which ends at the border."""
    window = min(WINDOW, *values.shape) // 2
    padded = np.pad(np.asarray(values, np.float64), window + 1, mode="edge")[:-1, :-1]
    sums = padded.cumsum(0).cumsum(1)
    side = 2 * window + 1
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (total / side**2).astype(np.float32)


def _correlation(a: Grey, b: Grey) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 0 else 1.0
