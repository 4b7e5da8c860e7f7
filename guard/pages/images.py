"""Pictures inside a page."""

import base64
import io

import numpy as np
from numpy.typing import NDArray


def data_uri(image: NDArray[np.uint8]) -> str:
    """A PNG as a data: address. `image` is (H, W, 3) RGB or (H, W, 4) RGBA."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
