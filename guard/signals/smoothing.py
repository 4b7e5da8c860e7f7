"""Gaussian smoothing of maps: estimates from few probes are noisy pixel by pixel, what is reproduced is not."""

import torch
from torch import Tensor

LEAST = 0.05  # below that the neighbours' weight is nothing
REACH = 3  # widths to either side; 0.3 % of the weight lies beyond


def smooth(maps: Tensor, width: float) -> Tensor:
    """Returns maps (B, H, W) convolved with a Gaussian of that standard deviation in pixels; 0 leaves them alone.

    At the border the outermost values go on. Positive maps stay positive, constant ones stay as they are.
    """
    if width < LEAST:
        return maps
    reach = max(1, round(REACH * width))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=maps.device)
    kernel = torch.exp(-(offsets**2) / (2 * width**2))
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    padded = torch.nn.functional.pad(maps.unsqueeze(1), (reach,) * 4, mode="replicate")
    rows = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(rows, kernel.view(1, 1, -1, 1)).squeeze(1)
