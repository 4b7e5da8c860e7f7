"""What a picture looks like as a whole: a small copy, compared after its contrast is normalised, and image codes.

The distance of two small copies is that of unit vectors: 0 for equal ones whatever their brightness and contrast,
sqrt(2) for unlike ones. A distance says little by itself, since pictures of one kind are alike: what counts is how
near the nearest reference is among those that come next (Carlini et al. 2023, arXiv 2301.13188).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from ..image_codes import bits, codes_to_find, count

Floats = NDArray[np.float32]
SIDE = 16  # of a small copy; finer ones lose copies that were drawn anew, see docs/results.md
FLAT = 2.0  # levels of 255 by which pixels of a copy must vary, or it says nothing
FIRST, LAST = 3, 10  # of the nearest: these tell how near references of a kind lie; the first may be variants
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
BITS = 256
CODES = 4  # of a reference: without and with its border, and of the flipped picture


def small_copy(image: Any) -> NDArray[np.uint8]:
    """Returns a Pillow image as (SIDE, SIDE, 3) uint8, each pixel the mean of its part, whatever the proportions."""
    resampling = require("PIL.Image", "provenance").Resampling.BOX
    return np.asarray(image.resize((SIDE, SIDE), resampling), dtype=np.uint8)


def vectors(copies: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Returns small copies (N, SIDE, SIDE, 3) as unit vectors: (N, 3 SIDE^2) in colour, and (N, SIDE^2) in grey.

    Those of pictures that say nothing are zero, and so far from all others.
    """
    colour = copies.astype(np.float32)
    return _unit(colour.reshape(len(copies), -1)), _unit((colour @ _LUMA).reshape(len(copies), -1))


def _unit(values: Floats) -> Floats:
    values = values - values.mean(1, keepdims=True)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    says = norm > FLAT * values.shape[1] ** 0.5
    return np.where(says, values / np.maximum(norm, 1e-6), 0).astype(np.float32)


def distances(some: Floats, others: Floats) -> Floats:
    """Returns how far unit vectors (A, D) are from others (B, D), as (A, B) float32 in [0, 2]."""
    return np.sqrt(np.maximum(2 - 2 * (some @ others.T), 0), dtype=np.float32)


def usual(sorted_distances: Floats) -> float:
    """Returns how near references lie to a picture by its kind: the mean of the FIRST to LAST nearest.

    Of few references the farther half is taken. With fewer than four there is no kind: sqrt(2), as of unlike pictures.
    """
    total = len(sorted_distances)
    if total < 4:
        return 2**0.5
    part = sorted_distances[min(FIRST, total // 2) : LAST]
    return max(float(part.mean()), 1e-6)


def codes(image: Any) -> NDArray[np.uint64]:
    """Returns image codes (CODES, 4) of a Pillow image; those that say nothing are of zeros alone.

    Raises MissingPackage where iscc-lib is not installed.
    """
    flipped = image.transpose(require("PIL.Image", "provenance").Transpose.FLIP_LEFT_RIGHT)
    found = np.zeros((CODES, 4), np.uint64)
    for side, picture in enumerate((image, flipped)):
        said = codes_to_find(picture)
        if said:
            found[2 * side] = bits(said[0])
            found[2 * side + 1] = bits(said[-1])
    return found


def code_distances(code: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns in how many bits a picture, or it flipped, differs from others; of the nearest codes.

    Args:
        code: Codes of the picture, (CODES, 4).
        others: Codes of N others, (N, CODES, 4).

    Returns:
        (N,) int64, BITS where a picture says nothing.
    """
    found = np.full(len(others), BITS, np.int64)
    for mine in np.unique(code, axis=0):
        for number in (0, 1):
            theirs = others[:, number]
            far = np.where(theirs.any(1), count(theirs ^ mine).sum(1), BITS)
            if mine.any():
                found = np.minimum(found, far)
    return found
