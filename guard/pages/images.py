"""Pictures inside a page."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import png


def difference(images: NDArray[np.uint8]) -> float | None:
    """Returns the mean root mean square difference, in [0, 1], between any two of the images (S, H, W, 3) uint8.

    0 = all identical; None for fewer than two images.
    """
    if len(images) < 2:
        return None
    rows = images.reshape(len(images), -1).astype(np.float32) / 255
    pairs = [(rows[i + 1 :] - row) ** 2 for i, row in enumerate(rows[:-1])]
    return float(np.mean([value for pair in pairs for value in np.sqrt(pair.mean(1))]))


def photo_uri(picture: Any) -> str:
    """Returns a Pillow image, RGB, as a data: address of a JPEG, a fifth as large as a PNG of a photograph."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def data_uri(image: NDArray[np.uint8]) -> str:
    """Returns an image, (H, W, 3) RGB or (H, W, 4) RGBA, as a data: address of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png(image, small=True)).decode("ascii")
