"""Images of any origin as what autoencoders take: RGB in [0, 1], of a model's own size."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .images import open_image, require_size, require_still

MOST_PIXELS = 64 << 20
SMALLEST_SIDE = 32  # pixels; less says nothing about its maker
_GREY16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_picture(image: Any, name: str = "the image") -> Tensor:
    """Returns an image as (1, 3, H, W) float32 in [0, 1].

    Args:
        image: A file, a Pillow image, an array (H, W, 1, 3 or 4), uint8, uint16 or float in [0, 1], or a tensor
            (3, H, W) or (1, 3, H, W) in [0, 1]. Grey, palette, CMYK, 16-bit and opaque images are converted.
        name: What errors call an image that is no file.

    Raises:
        InputError: No image, animated, with transparent parts, smaller than 32 pixels, larger than 64 megapixels,
            or values outside [0, 1].
    """
    if isinstance(image, str | Path):
        name, image = str(image), open_image(image, most_pixels=MOST_PIXELS)
    if isinstance(image, Tensor):
        pixels = _from_tensor(image, name)
    elif hasattr(image, "convert") and hasattr(image, "mode"):
        pixels = _from_pillow(image, name)
    else:
        pixels = _from_array(np.asarray(image), name)
    height, width = pixels.shape[-2:]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{name} has {width}x{height} pixels, which say nothing about who made it: "
            f"give one of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}, as it was made"
        )
    return pixels


def fitted(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes images (B, 3, H, W), bicubic, to cover a size, and cuts them to it around the centre; returns them."""
    height, width = pixels.shape[-2:]
    if (height, width) == size:
        return pixels
    scale = max(size[0] / height, size[1] / width)
    shape = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    if shape != (height, width):
        pixels = torch.nn.functional.interpolate(pixels, shape, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (shape[0] - size[0]) // 2, (shape[1] - size[1]) // 2
    return pixels[..., top : top + size[0], left : left + size[1]]


def digest_of(picture: Tensor) -> str:
    """Returns the SHA-256 of a picture (1, 3, H, W), in hex: equal for equal pixels and size, whatever the file."""
    return hashlib.sha256(picture.numpy().tobytes() + repr(tuple(picture.shape[-2:])).encode()).hexdigest()


def _from_pillow(image: Any, name: str) -> Tensor:
    require_size(image.size, name, MOST_PIXELS)
    require_still(image, name)
    if image.mode in _GREY16:
        return _from_array(np.asarray(image).astype(np.int64).clip(0, 65535).astype(np.uint16), name)
    if image.mode == "F":
        raise InputError(f"{name} has floating-point pixels, whose range is unknown: save it as PNG")
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    return _from_array(np.asarray(image), name)


def _from_array(array: np.ndarray, name: str) -> Tensor:
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{name} is no image: an array is (height, width, 3), not {tuple(array.shape)}")
    scale = {"uint8": 255.0, "uint16": 65535.0}.get(array.dtype.name)
    if scale is None and array.dtype.kind != "f":
        raise InputError(f"{name} has pixels of type {array.dtype}: give uint8, uint16, or float in [0, 1]")
    pixels = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32) / (scale or 1.0)).permute(2, 0, 1)
    if pixels.shape[0] == 4:
        if (pixels[3] < 1).any():
            raise InputError(f"{name} has transparent parts: put it on a background first, and save it without alpha")
        pixels = pixels[:3]
    return _from_tensor(pixels.expand(3, -1, -1), name)


def _from_tensor(pixels: Tensor, name: str) -> Tensor:
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(0)
    if pixels.ndim != 4 or tuple(pixels.shape[:2]) != (1, 3) or 0 in pixels.shape:
        raise InputError(f"{name} is no image: a tensor is (3, H, W) or (1, 3, H, W), not {tuple(pixels.shape)}")
    require_size((pixels.shape[-1], pixels.shape[-2]), name, MOST_PIXELS)
    pixels = pixels.detach().cpu().float()
    if not torch.isfinite(pixels).all() or pixels.min() < -1e-3 or pixels.max() > 1 + 1e-3:
        raise InputError(f"{name} has values outside [0, 1], or NaN: divide 8-bit pixels by 255")
    return pixels.clamp(0, 1)
