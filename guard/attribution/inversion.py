"""Which latent was this image decoded from? The encoder's answer, refined until it decodes to the image.

An image that was decoded from z satisfies encode(decode(z)) = encode(image), so z is a fixed point of
z <- z + encode(image) - encode(decode(z)). Anderson's acceleration (Anderson 1965; Walker & Ni 2011) makes that
iteration quick; no gradient is needed. The better an autoencoder can reproduce an image, the likelier it made it: the
idea of LatentTracer (Wang et al. 2024, arXiv 2405.19673), which descends the decoder's gradient instead.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..errors import InputError
from ..protocols import ImageDenoiser as Autoencoder

ITERATIONS = 12
MEMORY = 5
TINY = 1e-12
PASSES = 2 * ITERATIONS + 3  # of an image through its autoencoder, one way or the other


@dataclass(frozen=True)
class Inversion:
    """What an autoencoder makes of images.

    Attributes:
        encoded: The encoder's own latents, (B, C, h, w) float32.
        latents: The latents that decode closest to the images, (B, C, h, w) float32.
        first_gap: Mean square error (B,) float64 of decoding what was encoded; smaller = likelier its own image.
        last_gap: Mean square error (B,) float64 of decoding the refined latents.
        second_gap: Mean square error (B,) float64 of encoding and decoding once more what was decoded first: how hard
            the image is.
    """

    encoded: Tensor
    latents: Tensor
    first_gap: Tensor
    last_gap: Tensor
    second_gap: Tensor


@torch.no_grad()
def invert(autoencoder: Autoencoder, images: Tensor, *, iterations: int = ITERATIONS) -> Inversion:
    """Finds the latents that images (B, 3, H, W) in [0, 1] were decoded from, as far as they can be told.

    Each image keeps the best of its iterates, so more iterations never make it worse.

    Returns:
        The encoder's latents, the refined ones, and the errors of decoding both.

    Raises:
        InputError: The autoencoder answers with NaN or infinity.
    """
    encoded = autoencoder.encode_image(images).float()
    _require_finite(encoded)
    images = images.to(encoded.device)
    best, best_gap = encoded.clone(), torch.full((len(images),), torch.inf, dtype=torch.float64)
    first_gap = second_gap = best_gap
    z, steps = encoded, _Anderson()
    for step in range(iterations + 1):
        decoded = autoencoder.decode(z).float()
        gap = mean_square(decoded - images)
        better = gap < best_gap
        best[better.to(z.device)], best_gap = z[better.to(z.device)], torch.where(better, gap, best_gap)
        if step == 0:
            _require_finite(gap)
            first_gap = gap
        if step == iterations:
            break
        again = autoencoder.encode_image(decoded).float()
        if step == 0:
            second_gap = mean_square(autoencoder.decode(again).float() - decoded)
        z = steps.next(z, encoded - again)
        z = torch.where(torch.isfinite(z), z, best)
    return Inversion(encoded, best, first_gap, best_gap, second_gap)


def _require_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise InputError("the autoencoder answered with NaN or infinity: load the model in float32 or bfloat16")


def mean_square(x: Tensor) -> Tensor:
    """Returns the mean square of each row of x, (B,) float64, on the CPU, since not every device knows float64."""
    return x.detach().flatten(1).cpu().double().square().mean(1)


class _Anderson:
    """Points z and residuals r of the last steps, each (B, N); finds the mixture whose residual is least."""

    def __init__(self) -> None:
        self.points: list[Tensor] = []
        self.residuals: list[Tensor] = []

    def next(self, z: Tensor, residual: Tensor) -> Tensor:
        """Returns the point to try after z, with z's residual; all are (B, C, h, w)."""
        self.points = [*self.points, z.flatten(1).cpu().double()][-MEMORY - 1 :]
        self.residuals = [*self.residuals, residual.flatten(1).cpu().double()][-MEMORY - 1 :]
        if len(self.points) == 1:
            return z + residual
        moved = torch.stack([b - a for a, b in pairwise(self.points)], -1)
        changed = torch.stack([b - a for a, b in pairwise(self.residuals)], -1)
        normal = changed.mT @ changed
        ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(TINY)
        normal = normal + ridge.view(-1, 1, 1) * torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
        weights = torch.linalg.solve(normal, changed.mT @ self.residuals[-1].unsqueeze(-1))
        step = self.residuals[-1] - ((moved + changed) @ weights).squeeze(-1)
        return (self.points[-1] + step).view_as(z).to(z)
