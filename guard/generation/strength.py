"""Embeddings that are weaker than any prompt's, judged as strong as prompts are.

Half of a memorized prompt and half of the empty one are reproduced nearly as well as the whole, while the guidance
at the first step, and with it the score, is that of a weak prompt. What the mixture adds to the empty prompt is the
memorized one's own, only shorter: so it is stretched to the length that ordinary prompts have, and judged once more.
"""

from typing import Any

import torch
from torch import Tensor

from ..denoiser import Condition
from ..prompts import benign

SAMPLE = 32  # shipped prompts whose strength is measured, a text encoder's work alone
LONGEST = 120  # characters; none of them is truncated
STRONG = 0.9  # the share of them that is weaker than what embeddings are stretched to
MOST = 20.0  # times; what is closer to the empty prompt holds nothing but rounding errors


class UsualStrength:
    """How far prompts lie from the empty one on a model; measured once per state of its text encoders."""

    def __init__(self) -> None:
        self._kept: tuple[Any, list[tuple[Condition, float]]] | None = None

    def stretched(self, denoiser: Any, condition: Condition) -> list[Condition]:
        """The conditions of one row each as strong as ordinary prompts, for each empty prompt they may be mixed with.

        Rows that are strong already stay as they are; nothing is returned where all are.
        """
        if self._kept is None or self._kept[0] is not denoiser.empty:
            self._kept = denoiser.empty, _measure(denoiser)
        found = []
        for base, usual in self._kept[1]:
            if base.tensors["text"].shape[1:] != condition.tensors["text"].shape[1:]:
                continue  # another length of text than the check reads
            factors = usual / _strength(condition, base).clamp_min(1e-6)
            if (factors > 1).any():
                found.append(_stretch(condition, base, factors.clamp(1, MOST)))
        return found


def _measure(denoiser: Any) -> list[tuple[Condition, float]]:
    texts = [text for text in benign() if len(text) <= LONGEST]
    texts = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    bases, plain = [denoiser.empty], denoiser.encode("")
    if not torch.equal(plain.tensors["text"], denoiser.empty.tensors["text"]):
        bases.append(plain)  # Stable Diffusion XL's own empty prompt is all zeros
    conditions = [denoiser.encode(text) for text in texts]
    return [
        (base, torch.cat([_strength(condition, base) for condition in conditions]).quantile(STRONG).item())
        for base in bases
    ]


def _strength(condition: Condition, base: Condition) -> Tensor:
    """(P,) distance of each text from the empty one, over the tokens that count."""
    text, mask = condition.tensors["text"], condition.tensors.get("mask")
    apart = (text - base.tensors["text"].to(text)).float()
    if mask is not None:
        apart = apart * mask.to(apart).unsqueeze(-1)
    return apart.flatten(1).norm(dim=1).cpu()


def _stretch(condition: Condition, base: Condition, factors: Tensor) -> Condition:
    tensors = dict(condition.tensors)
    for name in ("text", "pooled"):
        if name in tensors:
            row, origin = tensors[name], base.tensors[name].to(tensors[name])
            by = factors.to(row.device).view(-1, *[1] * (row.ndim - 1))
            tensors[name] = (origin.float() + by * (row - origin).float()).to(row.dtype)
    return Condition(**tensors)
