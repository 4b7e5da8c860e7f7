"""Energy of latents per radial ring of the frequency plane."""

from functools import cache

import torch
from torch import Tensor

RINGS = 8


@cache
@torch.inference_mode(False)  # it is kept, and must serve gradients later
def ring_of(height: int, width: int, device: torch.device) -> Tensor:
    """Returns the ring number (H * W,) of each bin of an unshifted 2-D FFT; the corners are in the last ring."""
    y, x = torch.fft.fftfreq(height, device=device), torch.fft.fftfreq(width, device=device)
    radius = torch.sqrt(y[:, None] ** 2 + x[None] ** 2) / 0.5**0.5  # 1 at the corners
    return (radius * RINGS).long().clamp(max=RINGS - 1).flatten()


def ring_energy(x: Tensor) -> Tensor:
    """Returns the energy per ring, summed over channels, (..., 8), of latents (..., C, H, W); the sum is ||x||^2."""
    power = torch.fft.fft2(x.float(), norm="ortho").abs().square().sum(-3).flatten(-2)
    energy = torch.zeros(*power.shape[:-1], RINGS, device=x.device)
    return energy.index_add_(-1, ring_of(x.shape[-2], x.shape[-1], x.device), power)
