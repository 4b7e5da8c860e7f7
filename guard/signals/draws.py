"""Private noise, equal on every device, and guidance on draws that stay the same from check to check."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError
from .guidance import Guidance

DRAWS = 4  # without a calibration that says how many


def derived_seed(seed: int, *purpose: object) -> int:
    """Returns an independent seed for each purpose, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def draw_noise(denoiser: Denoiser, draws: int, seed: int, shape: tuple[int, int, int] | None = None) -> Tensor:
    """Returns standard normal noise (draws, C, H, W) float32 from a private CPU generator: equal on every device."""
    if draws < 1:
        raise InputError(f"draws is {draws}: at least one noise draw is needed")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(draws, *(shape or denoiser.latent_shape()), generator=generator)


class FixedDraws:
    """Guidance on the draws of one seed, whose empty prompt is asked once per model."""

    def __init__(self) -> None:
        self._kept: tuple[Any, Guidance] | None = None

    def guidance(
        self, denoiser: Denoiser, draws: int, seed: int, shape: tuple[int, int, int], fingerprint: str
    ) -> Guidance:
        """Returns the guidance on that noise, the same object as long as nothing differs.

        Args:
            denoiser, draws, seed, shape: As for `draw_noise`.
            fingerprint: The model's, as it is now.

        Raises:
            InputError: Zero draws.
            NotApplicable: See `Denoiser.require_guidance`.
        """
        key = (fingerprint, str(denoiser.device), draws, seed, shape)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, Guidance(denoiser, draw_noise(denoiser, draws, seed, shape))
        return self._kept[1]
