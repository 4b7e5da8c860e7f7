"""From how likely places of an image are reproduced to one area, which ends where the picture does.

A conditional random field (CRF): places near each other that have the same colours are likelier both in or both out.
Mean field inference with a kernel that is cut off at a few latent pixels, as convolutions do it, takes time and memory
proportional to the image. A kernel as wide as the image joins what merely has the same colour.

References:
    Krähenbühl & Koltun, NeurIPS 2011, arXiv 1210.5644 (kernel, mean field); Teichmann & Cipolla, BMVC 2019, arXiv
    1805.04777 (cut off, as a convolution).
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .refine import laid_on

RADIUS, WIDTH = 4, 3.0  # latent pixels: where the kernel ends, and its standard deviation
STRIDE = 3  # only every third neighbour is asked, down and across
COLOUR = 0.15  # standard deviation in colour, of values in [0, 1]
WEIGHT = 6.0  # of what all neighbours say together, in the logits
ROUNDS = 10


def outline(logits: Tensor, images: Tensor) -> Tensor:
    """Returns the areas whose places are rather in than out.

    Args:
        logits: How likely each place is in, (B, h, w), as log odds.
        images: Their images, (B, 3, H, W) float32 in [0, 1], H >= h and W >= w.

    Returns:
        (B, H, W) bool.

    Raises:
        InputError: Shapes do not fit.
    """
    unary, guide = laid_on(logits, images)
    found = _mean_field(unary[:, 0], guide, guide.shape[-2] / logits.shape[1])
    return interpolate(found.unsqueeze(1), size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0] > 0


def _mean_field(unary: Tensor, guide: Tensor, scale: float) -> Tensor:
    """The log odds (B, H, W) after some rounds; `scale` is in pixels per latent pixel."""
    reach = max(1, round(RADIUS * scale))
    offsets = [
        (down, across)
        for down in range(-reach, reach + 1)
        for across in range(-reach, reach + 1)
        if down % STRIDE == across % STRIDE == 0 and 0 < down * down + across * across <= reach * reach
    ]
    height, width = unary.shape[1:]

    def beside(values: Tensor, down: int, across: int) -> Tensor:
        return values[..., reach + down : reach + down + height, reach + across : reach + across + width]

    around, inside = pad(guide, (reach,) * 4, mode="replicate"), pad(torch.ones_like(unary), (reach,) * 4)
    kernels = []
    for down, across in offsets:
        apart = (beside(around, down, across) - guide).square().sum(1) / COLOUR**2
        apart += (down * down + across * across) / (WIDTH * scale) ** 2
        kernels.append(torch.exp(-apart / 2) * beside(inside, down, across))
    total, found = sum(kernels, torch.zeros_like(unary)).clamp_min(1e-6), unary
    for _ in range(ROUNDS):
        # tanh(x / 2) = 2 sigmoid(x) - 1: from -1, out, to 1, in
        sides = pad(torch.tanh(found / 2), (reach,) * 4)
        said = torch.zeros_like(unary)
        for kernel, (down, across) in zip(kernels, offsets, strict=True):
            said += kernel * beside(sides, down, across)
        found = unary + WEIGHT * said / total
    return found
