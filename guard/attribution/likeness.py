"""Was this image seen before? By a digest of its pixels, or by a small copy that re-encoding and scaling leave alone.

Crops, mirror images and other edits that move things are not noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..pixels import digest_of

SIDE = 8  # pixels per side of a small copy
LARGEST, USUAL = 12.0, 2.0
"""How far the 8-bit values of a re-encoded image's small copy are off, at most and on average."""


@dataclass(frozen=True)
class Seen:
    """Images that were learned from.

    Attributes:
        digests: The n images' digests of pixels.
        copies: (n, 3 * SIDE * SIDE) uint8, one small copy of each image.
    """

    digests: tuple[str, ...] = ()
    copies: Tensor = field(default_factory=lambda: torch.zeros(0, 3 * SIDE * SIDE, dtype=torch.uint8))

    @staticmethod
    def of(pictures: Sequence[Tensor]) -> "Seen":
        """Returns what is kept of pictures (1, 3, H, W) in [0, 1]."""
        if not pictures:
            return Seen()
        return Seen(tuple(map(digest_of, pictures)), torch.stack([small_copy(picture) for picture in pictures]))

    def same(self, picture: Tensor) -> int | None:
        """Returns the number of the image with exactly these pixels; None if there is none."""
        digest = digest_of(picture)
        return self.digests.index(digest) if digest in self.digests else None

    def similar(self, picture: Tensor) -> int | None:
        """Returns the number of the image that may be the same, encoded or scaled anew; None if there is none."""
        if not len(self.copies):
            return None
        off = (self.copies.float() - small_copy(picture).float()).abs()
        nearest = int(off.mean(1).argmin())
        return nearest if off[nearest].max() <= LARGEST and off[nearest].mean() <= USUAL else None


def small_copy(picture: Tensor) -> Tensor:
    """Returns (3 * SIDE * SIDE,) uint8: the mean colours of a grid of SIDE x SIDE cells of a picture (1, 3, H, W)."""
    return (torch.nn.functional.adaptive_avg_pool2d(picture, SIDE) * 255).round().byte().flatten()
