"""What a mitigation gives to sample with, and how like the original its text condition is."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoiser import Condition
from ..report import Method, Mitigation, WordChange

__all__ = ["Mended", "Method", "Mitigation", "WordChange", "similarity"]


@dataclass(frozen=True)
class Mended:
    """A mitigation, and what to sample with: a condition of one row, or a noise (1, C, H, W)."""

    mitigation: Mitigation
    condition: Condition | None = None
    noise: Tensor | None = None


def similarity(condition: Condition, original: Condition) -> Tensor:
    """Returns (P,) cosines in [-1, 1] between the mean text conditions of P rows and of the original's one."""
    return torch.cosine_similarity(_summary(condition), _summary(original))


def _summary(condition: Condition) -> Tensor:
    text = condition.tensors["text"].detach().float().cpu()
    mask = condition.tensors.get("mask")
    if mask is None:
        return text.mean(1)
    weights = mask.float().cpu().unsqueeze(-1)
    return (text * weights).sum(1) / weights.sum(1).clamp_min(1)
