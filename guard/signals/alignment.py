"""Alignment of guidance with the empty prompt's noise, at low noise, of any conditions on fixed draws: `aniso`.

cos(noise(x, t_low, empty), noise(x, t_low, c) - noise(x, t_low, empty)) on pure noise x, at the third last of 50 steps
(Asthana & Belagiannis, ICLR 2026, arXiv 2601.20642), once per pixel over channels and once over the flattened latent.
"""

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from .guidance import Guidance


def low_noise(denoiser: Denoiser) -> NoiseLevel:
    """Returns the level that alignment is taken at."""
    return denoiser.levels.sampling(50)[-3]


def cosines(reference: Tensor, guidance: Tensor) -> Tensor:
    """Returns both cosines, (..., 2): mean over pixels of those over channels, and that of the flattened latents.

    Args:
        reference, guidance: Latents (..., C, H, W), which may broadcast.
    """
    per_pixel = torch.cosine_similarity(reference, guidance, dim=-3).mean((-2, -1))
    flat = torch.cosine_similarity(reference.flatten(-3), guidance.flatten(-3), dim=-1)
    return torch.stack([per_pixel, flat], -1)


class Alignment:
    """Alignment on fixed draws; the empty prompt is asked once, where it is shared.

    Args and errors are those of `Guidance`, without a level.

    Attributes:
        guidance: What asks the network, with the rows that it cost.
    """

    def __init__(self, denoiser: Denoiser, noise: Tensor, *, batch_rows: int | None = None):
        self.guidance = Guidance(denoiser, noise, level=low_noise(denoiser), answer="noise", batch_rows=batch_rows)

    def __call__(self, condition: Condition, *, grad: bool = False) -> Tensor:
        """Returns both cosines of each prompt and draw, (P, draws, 2); see `cosines`. Errors as in `counted`."""
        return self.counted(condition, grad=grad)[0]

    def counted(self, condition: Condition, *, grad: bool = False) -> tuple[Tensor, int]:
        """Returns the cosines, and how many rows the network was asked for them; errors as in `Guidance.counted`."""
        vectors, lower, rows = self.guidance.compared(condition, grad=grad)
        return cosines(lower, vectors), rows
