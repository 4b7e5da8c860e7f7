"""From what a pipeline returns to the bytes of an image file."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, require

# by extension: Pillow's format, and options that keep as much of the image as the format can
_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".avif": ("AVIF", {"quality": 90}),  # where Pillow has it
}


def encode(image: Any, path: Path, options: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a PNG, JPEG, WebP or AVIF file, by the path's extension.

    Args:
        image: A Pillow image, or an array or tensor (H, W, 3), uint8 or float in [0, 1]; also with 1 or 4 channels.
        path: Only its extension counts.
        options: Options of Pillow's encoder, e.g. pnginfo.

    Raises:
        InputError: Another shape, type or extension, values that are not finite, or options that Pillow refuses.
    """
    if path.suffix.lower() not in _ENCODERS:
        raise InputError(f"images are saved as .png, .jpg, .jpeg, .webp or .avif, not as {path.name!r}: rename it")
    name, usual = _ENCODERS[path.suffix.lower()]
    picture = image if hasattr(image, "save") and hasattr(image, "mode") else _picture(image)
    if name == "JPEG" and picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    try:
        picture.save(buffer, name, **{**usual, **options})
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"the image cannot be encoded as {name}: {error}") from error
    return buffer.getvalue()


def _picture(image: Any) -> Any:
    """A Pillow image of an array or a tensor."""
    pillow = require("PIL.Image", "provenance")
    if hasattr(image, "detach"):
        tensor = image.detach().cpu()
        image = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise InputError(f"an image is (height, width, 3), not {tuple(pixels.shape)}: give one image, channels last")
    if np.issubdtype(pixels.dtype, np.floating):
        if not np.isfinite(pixels).all():
            raise InputError("the image holds NaN or infinity: nothing was saved")
        pixels = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise InputError(f"an image is uint8, or float in [0, 1], not {pixels.dtype}")
    return pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
