"""Private noise, equal on every device, and guidance on draws that stay the same from check to check."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from ..denoiser import Denoiser, NoiseLevel
from ..errors import InputError
from .alignment import Alignment
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
        self._low: tuple[Guidance, Alignment] | None = None

    def guidance(
        self,
        denoiser: Denoiser,
        draws: int,
        seed: int,
        shape: tuple[int, int, int],
        fingerprint: str,
        level: NoiseLevel | None = None,
    ) -> Guidance:
        """Returns the guidance on that noise, the same object as long as nothing differs.

        Args:
            denoiser, draws, seed, shape: As for `draw_noise`.
            fingerprint: The model's, as it is now.
            level: As for `Guidance`.

        Raises:
            InputError: Zero draws.
            NotApplicable: See `Denoiser.require_guidance`.
        """
        level = level or denoiser.levels.pure_noise
        key = (fingerprint, str(denoiser.device), draws, seed, shape, level.time.item())
        if self._kept is None or self._kept[0] != key:
            self._kept = key, Guidance(denoiser, draw_noise(denoiser, draws, seed, shape), level=level)
        self._kept[1].denoiser = denoiser  # maybe another object of the same model
        return self._kept[1]

    def alignment(self, guidance: Guidance) -> Alignment:
        """Returns the alignment on the draws of a guidance that was given out, the same object as long as that is."""
        if self._low is None or self._low[0] is not guidance:
            self._low = guidance, Alignment(guidance.denoiser, guidance.noise)
        self._low[1].guidance.denoiser = guidance.denoiser
        return self._low[1]

    def release(self) -> None:
        """Lets go of the model, so that its host can unload it; what it answered is kept."""
        kept = [] if self._kept is None else [self._kept[1]]
        kept += [] if self._low is None else [self._low[1].guidance]
        for guidance in kept:
            guidance.denoiser = None  # type: ignore[assignment]
