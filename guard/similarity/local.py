"""Parts of pictures: local features, matched between two pictures and verified by one common movement.

Features are SIFT's (Lowe 2004), in 128 bits each: which of a descriptor's numbers are above their median (Zhou et al.
2012, "Scalar quantization for large scale image search"). A flipped picture needs no features of its own: flipping
moves the numbers of a descriptor to other places.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingPackage, require
from ..image_codes import count

MOST = 300  # features of a picture, the strongest
CONTRAST = 0.02  # that a feature must have; below SIFT's own, for soft pictures
LONG_SIDE, SHORTEST = 512, 128  # pixels that pictures are scaled to before
WORDS = 2  # uint64 of a feature
NEAR, RATIO = 36, 0.9  # bits that two features may differ; and of how far the second nearest is
ROUGH, FINE = 0.04, 0.015  # of the long side: how far a match may lie from the common movement, at first and at last
MOST_SCALE = 8.0
FEWEST = 4  # matches of one movement
Bits = NDArray[np.uint64]
Spots = NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of a picture.

    Attributes:
        bits: (F, WORDS) uint64.
        spots: (F, 4) float32: x and y, and the feature's size, in units of the long side; its angle in degrees.
    """

    bits: Bits
    spots: Spots

    def __len__(self) -> int:
        return len(self.bits)

    def flipped(self, width: float) -> "Features":
        """Returns the features of the picture flipped left to right, which is `width` long sides wide."""
        spots = self.spots.copy()
        spots[:, 0] = width - spots[:, 0]
        spots[:, 3] = (180 - spots[:, 3]) % 360
        unpacked = np.unpackbits(self.bits.view(np.uint8).reshape(-1, 16), axis=1)
        return Features(_packed(unpacked[:, _MIRROR]), spots)


@dataclass(frozen=True)
class Movement:
    """How a part of one picture lies in another: z -> turn * z + shift, with z = x + iy in long sides.

    Attributes:
        turn: Scale and rotation.
        shift: Where the origin comes to lie.
        matches: How many features agree, at different places of both pictures.
        places: Where those lie in the first picture, (matches, 2).
    """

    turn: complex
    shift: complex
    matches: int
    places: Spots


def available() -> bool:
    """Returns whether OpenCV is installed."""
    try:
        _opencv()
    except MissingPackage:
        return False
    return True


def missing() -> str:
    """Returns the sentence on what is missing without OpenCV, and how to get it."""
    return (
        "OpenCV is not installed, so parts, crops and rotated copies were not looked for: "
        "pip install opencv-python-headless, or all of its kind with 'cryptomnesia[compare]'"
    )


def _opencv() -> Any:
    return require("cv2", "compare")


def features(image: Any) -> Features:
    """Returns the strongest features of a Pillow image, RGB.

    Raises MissingPackage where OpenCV is not installed.
    """
    cv2, (width, height) = _opencv(), image.size
    scale = LONG_SIDE / max(width, height)
    if max(width, height) <= LONG_SIDE:
        scale = max(1.0, SHORTEST / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resampling = require("PIL.Image", "provenance").Resampling
    grey = image.convert("L")
    if size != grey.size:
        grey = grey.resize(size, resampling.BICUBIC if scale > 1 else resampling.BOX)
    spots, found = cv2.SIFT_create(nfeatures=MOST, contrastThreshold=CONTRAST).detectAndCompute(np.asarray(grey), None)
    if found is None or not len(found):
        return Features(np.zeros((0, WORDS), np.uint64), np.zeros((0, 4), np.float32))
    order = np.argsort([-spot.response for spot in spots], kind="stable")[:MOST]
    long = max(size)
    places = [(s.pt[0] / long, s.pt[1] / long, s.size / long, s.angle) for s in (spots[i] for i in order)]
    values = found[order]
    return Features(_packed(values > np.median(values, axis=1, keepdims=True)), np.array(places, np.float32))


def _packed(flags: NDArray[Any]) -> Bits:
    return np.ascontiguousarray(np.packbits(flags, axis=1)).view(np.uint64).reshape(-1, WORDS)


def _mirror() -> NDArray[np.int64]:
    """Where each of the 128 numbers (4 rows, 4 columns, 8 directions) comes from when the picture is flipped."""
    row, column, direction = np.meshgrid(np.arange(4), np.arange(4), np.arange(8), indexing="ij")
    return (((3 - row) * 4 + column) * 8 + (8 - direction) % 8).ravel()


_MIRROR = _mirror()


def far(some: Bits, others: Bits) -> NDArray[np.int64]:
    """Returns in how many bits features (A, WORDS) differ from others (B, WORDS), as (A, B)."""
    return sum(count(some[:, None, word] ^ others[None, :, word]) for word in range(WORDS))  # type: ignore[return-value]


def movement(one: Features, other: Features) -> Movement | None:
    """Returns the movement that most matches of two pictures agree on; None where fewer than FEWEST do.

    Each match tells a whole movement, by its size and angle, so that all can be tried: no chance is in it.
    """
    if min(len(one), len(other)) < FEWEST:
        return None
    pairs = _matches(one, other)
    if len(pairs) < FEWEST:
        return None
    a, b = one.spots[pairs[:, 0]], other.spots[pairs[:, 1]]
    from_, to = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    turns = (b[:, 2] / a[:, 2]) * np.exp(1j * np.deg2rad(b[:, 3] - a[:, 3]))
    possible = (np.abs(turns) < MOST_SCALE) & (np.abs(turns) > 1 / MOST_SCALE)
    turns = np.where(possible, turns, np.nan)
    with np.errstate(invalid="ignore"):
        moved = turns[:, None] * (from_[None] - from_[:, None]) + to[:, None]
        like = np.abs(np.log(np.abs(turns)[None] / np.abs(turns)[:, None])) < 0.7
        near = (np.abs(moved - to[None]) < ROUGH * np.maximum(1, np.abs(turns))[:, None]) & like
    agree = near.sum(1)
    inside = near[int(agree.argmax())]
    turn, shift = 0j, 0j
    for _ in range(3):
        if inside.sum() < FEWEST:
            return None
        turn, shift = _fitted(from_[inside], to[inside])
        if not 1 / MOST_SCALE < abs(turn) < MOST_SCALE:
            return None
        inside = np.abs(turn * from_ + shift - to) < FINE * max(1, abs(turn))
    places = min(_different(from_[inside]), _different(to[inside]))
    if places < FEWEST:
        return None
    return Movement(
        complex(turn), complex(shift), places, np.stack([from_[inside].real, from_[inside].imag], 1).astype(np.float32)
    )


def _matches(one: Features, other: Features) -> NDArray[np.int64]:
    """Pairs of features that are each other's nearest, and nearer than the next one elsewhere."""
    apart = far(one.bits, other.bits)
    nearest = apart.argmin(1)
    rows = np.arange(len(one))
    best = apart[rows, nearest]
    mutual = apart.argmin(0)[nearest] == rows
    elsewhere = np.hypot(*(other.spots[:, None, :2] - other.spots[None, :, :2]).transpose(2, 0, 1)) > FINE
    second = np.where(elsewhere[nearest], apart, 128).min(1)
    kept = mutual & (best <= NEAR) & (best <= RATIO * second)
    return np.stack([rows[kept], nearest[kept]], 1)


def _fitted(from_: NDArray[Any], to: NDArray[Any]) -> tuple[complex, complex]:
    """The similarity that moves some points to others with the least squares."""
    a, b = from_ - from_.mean(), to - to.mean()
    turn = complex((np.conj(a) * b).sum() / max(float((np.abs(a) ** 2).sum()), 1e-12))
    return turn, complex(to.mean() - turn * from_.mean())


def _different(points: NDArray[np.complexfloating]) -> int:
    """How many places there are, those within half of FINE counted once."""
    grid = np.round(np.stack([points.real, points.imag], 1) / (FINE / 2))
    return len(np.unique(grid, axis=0))
