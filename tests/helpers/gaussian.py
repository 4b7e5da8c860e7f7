"""The exact denoiser of Gaussian data, x0 ~ N(mean, std^2) in each coordinate, in every model family's output."""

import torch
from torch import Tensor

ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, dim=0)
"""Stable Diffusion's schedule, (1000,), worked out here once more."""

STD = 0.5


def levels(time: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """alpha and sigma at timesteps, or at flow times in [0, 1]; each (B, 1, 1, 1) float64."""
    if kind == "flow":
        sigma = time.double()
        alpha = 1 - sigma
    else:
        abar = ABAR[time.long()]
        alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
    return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)


def split(x: Tensor, time: Tensor, kind: str, mean: Tensor | float, std: Tensor | float = STD) -> tuple[Tensor, Tensor]:
    """E[x0 | x] and E[noise | x] in float64."""
    alpha, sigma = levels(time, kind)
    x = x.double()
    surprise = (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)
    return mean + alpha * std**2 * surprise, sigma * surprise


def output(x: Tensor, time: Tensor, kind: str, mean: Tensor | float, std: Tensor | float = STD) -> Tensor:
    """What a perfect network of that kind puts out, float64."""
    alpha, sigma = levels(time, kind)
    x0, noise = split(x, time, kind, mean, std)
    return {"epsilon": noise, "v": alpha * noise - sigma * x0, "sample": x0, "flow": noise - x0}[kind]
