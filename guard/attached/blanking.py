"""Keeps single images of a pipeline's output back: black ones, or empty latents, take their place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import NotApplicable


def without_images(out: Any, numbers: Sequence[int]) -> Any:
    """Returns a pipeline's output with these of its images blank; the others stay as they are.

    Args:
        out: A tuple whose first entry are the images, or an object with `images`: a list of Pillow images, an array or
            a tensor with one row per image.
        numbers: Which images.

    Raises:
        NotApplicable: The images are something else, so that none can be taken out; then no image goes out.
    """
    if not numbers:
        return out
    if isinstance(out, tuple):
        return type(out)((_blanked(out[0], numbers), *out[1:]))
    out.images = _blanked(out.images, numbers)
    return out


def _blanked(images: Any, numbers: Sequence[int]) -> Any:
    if isinstance(images, Tensor):
        images = images.clone()
        images[list(numbers)] = 0
        return images
    if isinstance(images, np.ndarray):
        images = images.copy()
        images[list(numbers)] = 0
        return images
    if not isinstance(images, list) or max(numbers) >= len(images):
        raise NotApplicable(
            f"images that are handed out as {type(images).__name__} cannot be kept back one by one: leave out per_image"
        )
    return [_black(image) if i in numbers else image for i, image in enumerate(images)]


def _black(image: Any) -> Any:
    if isinstance(image, Tensor | np.ndarray):
        return image * 0
    from PIL import Image

    return Image.new(image.mode, image.size)
