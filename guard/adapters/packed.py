"""Latents as transformers of the Flux kind take them: patches of 2x2 as tokens."""

import torch
from torch import Tensor

from .flow import TIMESTEPS, FlowDenoiser


def pack(latents: Tensor) -> Tensor:
    """Returns latents (B, C, H, W) as tokens (B, H W / 4, 4 C), row by row; H and W are even."""
    rows, channels, height, width = latents.shape
    patches = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, height * width // 4, channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Returns tokens (B, H W / 4, 4 C) as latents (B, C, H, W) of that height and width."""
    rows, _, values = tokens.shape
    patches = tokens.reshape(rows, height // 2, width // 2, values // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(rows, values // 4, height, width)


def places(height: int, width: int) -> Tensor:
    """Returns row and column of each token of a grid of that height and width, (H W, 2), row by row."""
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid, dim=-1).reshape(height * width, 2)


class PackedFlowDenoiser(FlowDenoiser):
    """Rectified flow on packed latents: the network is fed tokens, and s rounded to its dtype."""

    @property
    def _network_channels(self) -> int:
        return self.network.config.in_channels // 4

    @property
    def _factor(self) -> int:
        return self.pipe.vae_scale_factor * 2

    def packed(self, latents: Tensor) -> Tensor:
        return pack(latents)

    def _fed(self, x: Tensor, time: Tensor) -> Tensor:
        """Flow times, rounded as the pipelines round them: as thousandths, in the network's dtype."""
        return (time * TIMESTEPS).to(x.dtype) / TIMESTEPS
