"""Latents as transformers of the Flux kind take them: patches of 2x2 as tokens."""

from torch import Tensor


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
