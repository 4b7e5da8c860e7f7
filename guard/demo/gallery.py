"""Training images that ship with the built-in model, to show and to measure what it reproduces.

One sheet of 64x64 tiles: every verbatim image, every template foreground (its alpha is the mask) and the first
rendering of every general caption.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .captions import Caption, select

SHEET = Path(__file__).parent / "weights" / "training_images.webp"
KINDS = ("verbatim", "template", "general")
COLUMNS = 32
SIDE = 64


def rms(images: NDArray[np.uint8], others: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns the root mean square difference in [0, 1] over RGB inside the masks; smaller = more alike.

    Args:
        images: The images to compare, (A, 64, 64, 3) uint8.
        others: The images that they are compared with, (B, 64, 64, 3) uint8.
        masks: The pixels of `others` that count, (B, 64, 64).

    Returns:
        The difference of each pair, (A, B) float32.
    """
    weights = np.repeat(masks.reshape(len(masks), -1).astype(np.float32), 3, axis=1)
    a = images.reshape(len(images), -1).astype(np.float32) / 255
    b = others.reshape(len(others), -1).astype(np.float32) / 255
    # |a - b|^2 under each mask, as products, so that many pairs cost two matrix products
    total = a**2 @ weights.T - 2 * a @ (b * weights).T + (b**2 * weights).sum(1)
    return np.sqrt(np.maximum(total, 0) / weights.sum(1)).astype(np.float32)


@dataclass(frozen=True)
class Gallery:
    """Captions (N), images (N, 64, 64, 3) uint8 and masks (N, 64, 64) bool, True where the image is fixed."""

    captions: list[Caption]
    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]

    @staticmethod
    @cache
    def load(path: Path = SHEET) -> "Gallery":
        """Returns the gallery in the package."""
        from PIL import Image

        shown = [c for kind in KINDS for c in select(kind)]
        with Image.open(path) as sheet:
            pixels = np.asarray(sheet.convert("RGBA"))
        rows = pixels.shape[0] // SIDE
        tiles = pixels.reshape(rows, SIDE, COLUMNS, SIDE, 4).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 4)[: len(shown)]
        return Gallery(shown, np.ascontiguousarray(tiles[..., :3]), tiles[..., 3] > 127)

    def closest(self, image: NDArray[np.uint8], *, templates: bool = True) -> tuple[int, float]:
        """Returns the number of, and the distance to, the training image that is most like the image (64, 64, 3).

        Without `templates`, only whole images are compared: a small figure alone is soon like something.
        """
        distances = rms(image[None], self.images, self.masks)[0]
        if not templates:
            distances[[c.kind == "template" for c in self.captions]] = np.inf
        best = int(distances.argmin())
        return best, float(distances[best])
