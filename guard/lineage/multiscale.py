"""Features at several scales around any encoder (S2: Shi et al. 2024, arXiv 2403.13043)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..encoders import Embeddings, Encoder
from ..errors import InputError
from ..pixels import fitted


class MultiScale:
    """An encoder that averages another one's features over tiles of enlarged images.

    At scale s an image is enlarged to s times the encoder's size and cut into s x s tiles of it; the tiles' features
    are averaged, and those of all scales put one after the other, (B, D * len(scales)).

    Raises:
        InputError: The scales are not different positive integers.
    """

    def __init__(self, encoder: Encoder, scales: Sequence[int] = (1, 2)):
        if not scales or any(not isinstance(s, int) or s < 1 for s in scales) or len({*scales}) < len(scales):
            raise InputError(f"scales are different positive integers, such as 1 and 2, not {list(scales)}")
        self.encoder, self.scales, self.size = encoder, tuple(scales), encoder.size
        self.name = encoder.name + (f" at scales {', '.join(map(str, scales))}" if self.scales != (1,) else "")

    def encode(self, images: Sequence[Tensor]) -> Embeddings:
        """Returns vectors (B, D * len(scales)) of B images, as `Encoder.encode` does."""
        return np.concatenate([self._at(scale, images) for scale in self.scales], axis=1)

    def _at(self, scale: int, images: Sequence[Tensor]) -> Embeddings:
        tiles = [tile for image in images for tile in _tiles(image, self.size, scale)]
        features = self.encoder.encode(tiles)
        return features.reshape(len(images), scale * scale, -1).mean(1)


def _tiles(image: Tensor, size: tuple[int, int], scale: int) -> list[Tensor]:
    height, width = size
    large = fitted(image, (height * scale, width * scale))
    return [part for row in torch.split(large, height, 2) for part in torch.split(row, width, 3)]
