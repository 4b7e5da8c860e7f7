"""Images in the forms that trainings have them in, as latents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError, require
from ..protocols import ImageDenoiser

PER_CALL = 4  # images that the autoencoder reads at a time; it takes more memory than the network


def latents_of(
    denoiser: Denoiser,
    images: Any,
    count: int,
    rows: Sequence[int],
    size: tuple[int | None, int | None],
    what: str,
) -> Tensor:
    """Returns the latents (R, C, h, w) float32 on the CPU of some of the images.

    Args:
        denoiser: The model; its autoencoder reads images that are no latents yet.
        images: PIL images or arrays (H, W, 3) uint8, cropped to the model's size; a tensor (N, 3, H, W) in [0, 1]; or
            latents (N, C, h, w).
        count: How many there are to be.
        rows: Which of them are wanted.
        size: Height and width of the model's images in pixels, None for its own.
        what: What messages call them.

    Raises:
        InputError: Another number of images, a tensor of another shape, NaN, or a model without an autoencoder.
    """
    if images is None or not hasattr(images, "__len__") or len(images) != count:
        found = "none" if images is None else str(len(images)) if hasattr(images, "__len__") else "no list"
        raise InputError(f"{what}: {found} for {count} captions: give one image for each")
    shape = denoiser.latent_shape(*size)
    if not isinstance(images, Tensor):
        height, width = denoiser.pixels(shape) or (None, None)
        if height is None or width is None:
            raise InputError(
                f"{what}: this model reads no images: give latents (N, {shape[0]}, {shape[1]}, {shape[2]})"
            )
        return _encoded(denoiser, torch.stack([_cropped(images[row], height, width, what) for row in rows]), what)
    chosen = images.detach()[torch.as_tensor(list(rows), device=images.device)].float().cpu()
    if chosen.ndim != 4 or not torch.isfinite(chosen).all():
        raise InputError(f"{what} have shape {tuple(images.shape)}, or hold NaN: give finite (N, 3, H, W) or latents")
    reads = isinstance(denoiser, ImageDenoiser)
    if chosen.shape[1] == shape[0] and not (reads and shape[0] == 3):
        return chosen
    if chosen.shape[1] != 3:
        raise InputError(f"{what} have {chosen.shape[1]} channels: give images with 3, or latents with {shape[0]}")
    if chosen.min() < -1e-3 or chosen.max() > 1 + 1e-3:
        raise InputError(f"{what} lie outside of [0, 1]: give pixel_values / 2 + 0.5, as many scripts have them")
    return _encoded(denoiser, chosen, what)


def require_apart(trained: Tensor, held_out: Tensor) -> None:
    """Raises InputError where an image is in both sets, or the sets have different sizes."""
    if trained.shape[1:] != held_out.shape[1:]:
        raise InputError(
            f"images and held-out images have different sizes ({tuple(trained.shape[1:])}, {tuple(held_out.shape[1:])})"
        )
    seen = {row.numpy().tobytes() for row in trained}
    both = sum(row.numpy().tobytes() in seen for row in held_out)
    if both:
        raise InputError(f"{both} of the held-out images are trained on: hold others back")


def _encoded(denoiser: Denoiser, pixels: Tensor, what: str) -> Tensor:
    if not isinstance(denoiser, ImageDenoiser) or getattr(getattr(denoiser, "pipe", denoiser), "vae", 0) is None:
        raise InputError(f"{what}: there is no autoencoder that reads images: give vae=, or latents")
    with torch.no_grad():
        parts = [denoiser.encode_image(part).float().cpu() for part in pixels.split(PER_CALL)]
    return torch.cat(parts)


def _cropped(image: Any, height: int, width: int, what: str) -> Tensor:
    """One image (3, H, W) in [0, 1], as small as still covers the size, and cropped in the middle."""
    fit = require("PIL.ImageOps", "provenance").fit
    images = require("PIL.Image", "provenance")
    shown: Any = image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        shown = images.fromarray(image)
    if not isinstance(shown, images.Image):
        raise InputError(f"{what} hold a {type(image).__name__}: give PIL images, arrays (H, W, 3) uint8, or a tensor")
    pixels = np.asarray(fit(shown.convert("RGB"), (width, height), images.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
