"""Does a changed prompt still pull towards the image that the original pulled to?

A lower score alone is no forgetting: scaled down, the same guidance leads to the same image. What must change is its
direction, with every frequency counted in units of what benign prompts have there.
"""

import torch
from torch import Tensor

from .rings import ring_of


def whiten(guidance: Tensor, reference: list[float]) -> Tensor:
    """Expresses guidance vectors in benign units, so that dot products weigh all rings alike.

    Args:
        guidance: Mean guidance vectors at pure noise, (..., C, H, W).
        reference: Mean energy of benign prompts per ring, as in `Combination.reference`.

    Returns:
        (..., N) float32.
    """
    ring = ring_of(guidance.shape[-2], guidance.shape[-1], guidance.device)
    scale = torch.tensor(reference, device=guidance.device).float().sqrt()[ring]
    waves = torch.fft.fft2(guidance.float(), norm="ortho").flatten(-2) / scale
    return torch.view_as_real(waves).flatten(-3)


def guidance_similarity(guidance: Tensor, original: Tensor, reference: list[float]) -> Tensor:
    """Returns how much guidance still pulls to the image that the original's guidance pulled to.

    Args:
        guidance: Mean guidance vectors at pure noise, (P, C, H, W).
        original: The original's, (1, C, H, W).
        reference: Mean energy of benign prompts per ring, as in `Combination.reference`.

    Returns:
        (P,) float32 cosines in [-1, 1] in benign units: 1 pulls to the same image, however weakly, 0 to another one;
        higher is worse.
    """
    return torch.cosine_similarity(whiten(guidance, reference), whiten(original, reference), dim=-1)
