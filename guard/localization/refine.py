"""From a map in latent pixels to one in image pixels, whose edges are those of the picture.

A latent pixel covers 8x8 pixels of the image or so, and estimates are smoothed besides, so maps end in a blur. What is
reproduced mostly ends where something in the picture ends: a guided filter lets the map follow the picture's colours
within a few latent pixels.

References:
    He, Sun & Tang, Guided Image Filtering, TPAMI 2013 (colour guide); He & Sun, arXiv 1505.00996 (coarse coefficients).
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ..errors import InputError

RADIUS = 3  # latent pixels
EDGE = 0.003  # colour variance, of values in [0, 1], below which the picture counts as flat
FINE = 4  # most pixels per latent pixel at which coefficients are found


def refine(maps: Tensor, images: Tensor) -> Tensor:
    """Enlarges maps to the size of their images, ending where the pictures do.

    Args:
        maps: The maps, (B, h, w) float32, >= 0.
        images: Their images, (B, 3, H, W) float32 in [0, 1], H >= h and W >= w.

    Returns:
        (B, H, W) float32, >= 0.

    Raises:
        InputError: Shapes do not fit.
    """
    coarse, guide = laid_on(maps, images)
    radius = max(1, round(RADIUS * guide.shape[-2] / maps.shape[1]))
    coefficients = _coefficients(coarse, guide, radius)
    fine = interpolate(coefficients, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return ((fine[:, :3] * images.float()).sum(1) + fine[:, 3]).clamp_min(0)


def laid_on(maps: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns maps (B, h, w) and their images (B, 3, H, W) at one size between both, (B, 1, ...) and (B, 3, ...).

    That size has FINE pixels per latent pixel, or as many as the image has. Raises InputError where shapes do not fit.
    """
    fits = maps.ndim == 3 and images.ndim == 4 and images.shape[1] == 3 and len(images) == len(maps)
    if not fits or any(large < small for large, small in zip(images.shape[-2:], maps.shape[-2:], strict=True)):
        raise InputError(
            f"maps (B, h, w) belong to images (B, 3, H, W) at least as large, "
            f"not {tuple(maps.shape)} to {tuple(images.shape)}"
        )
    size = [min(FINE * small, large) for large, small in zip(images.shape[-2:], maps.shape[-2:], strict=True)]
    guide = interpolate(images.float(), size=size, mode="area")
    return interpolate(maps.float().unsqueeze(1), size=size, mode="bilinear", align_corners=False), guide


def _coefficients(maps: Tensor, guide: Tensor, radius: int) -> Tensor:
    """(B, 4, H, W): slopes a in each colour and offset b such that a . colour + b is closest to the map all around."""
    mean, average = _box(guide, radius), _box(maps, radius)
    covariance = _box(guide * maps, radius) - mean * average
    products = _box((guide.unsqueeze(1) * guide.unsqueeze(2)).flatten(1, 2), radius)
    spread = products - (mean.unsqueeze(1) * mean.unsqueeze(2)).flatten(1, 2)
    matrix = spread.unflatten(1, (3, 3)).permute(0, 3, 4, 1, 2) + EDGE * torch.eye(3, device=guide.device)
    slopes = torch.linalg.solve(matrix, covariance.permute(0, 2, 3, 1).unsqueeze(-1)).squeeze(-1).permute(0, 3, 1, 2)
    offsets = average - (slopes * mean).sum(1, keepdim=True)
    return _box(torch.cat([slopes, offsets], dim=1), radius)


def _box(values: Tensor, radius: int) -> Tensor:
    """Means over squares of 2 radius + 1 pixels; at the border the outermost values go on."""
    padded = pad(values, (radius,) * 4, mode="replicate")
    rows = avg_pool2d(padded, (1, 2 * radius + 1), stride=1)
    return avg_pool2d(rows, (2 * radius + 1, 1), stride=1)
