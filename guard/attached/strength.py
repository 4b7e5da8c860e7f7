"""Embeddings that are weaker than a prompt's, brought back to full strength and judged once more.

Half of a memorized prompt and half of the empty one, or of nothing, are reproduced nearly as well as the whole, while
guidance at the first step, and with it the score, is that of a weak prompt. But most text encoders end in a layer
norm: undo its weights, and every token of every prompt has one length. A mixture lies inside that sphere, and the line
from what was mixed in through the mixture meets the sphere where the prompt was.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.offloaded import state_of
from ..denoiser import Condition, Denoiser
from ..protocols import PipelineDenoiser

WEAKENED = "embeddings were given that are weaker than a prompt's: they were judged at full strength, too"
UNKNOWN_STRENGTH = "embeddings were given: a memorized prompt that was weakened can be reproduced and look clear"
_NORM = "final_layer_norm"  # of CLIP and T5
_ROUNDING = 0.05  # in float16, whole prompts come out this near to the sphere
_FINE = 1e-4  # of a squared length: what is nearer says more of rounding errors than of a prompt
_MOST = 20.0  # times; what is weaker holds nothing but rounding errors


@dataclass(frozen=True)
class Sphere:
    """Where the tokens of prompts lie: |(token - bias) / weight|^2 is their width.

    Attributes:
        weight, bias: The last layer norm's parameters, (D,).
        tokens: Which of a text's tokens come from it, (L,) bool.
        empty: The empty prompt, as the text encoders read it.
    """

    weight: Tensor
    bias: Tensor
    tokens: Tensor
    empty: Condition

    @staticmethod
    def of(host: PipelineDenoiser) -> "Sphere | None":
        """Returns the sphere of the first text encoder whose final layer norm's answer the network gets as it is.

        None if there is no such encoder.
        """
        empty = host.encode("")
        text = empty.tensors["text"].float()
        for encoder in host.text_encoders:
            state = state_of(encoder)
            for name in [name for name in state if name.endswith(f"{_NORM}.weight")]:
                weight, bias = state[name]().to(text), state.get(f"{name.removesuffix('weight')}bias")
                if weight.shape != text.shape[-1:]:
                    continue
                bias = torch.zeros_like(weight) if bias is None else bias().to(text)
                lengths = ((text[0] - bias) / weight).square().mean(-1)
                tokens = (lengths - 1).abs() < _ROUNDING
                if tokens.any():
                    return Sphere(weight, bias, tokens, empty)
        return None

    def restored(self, condition: Condition) -> Condition | None:
        """Returns each row as strong as a prompt, whether it was weakened by the empty prompt or by nothing (zeros).

        Rows that are as strong stay as they are; None if all are.
        """
        text = condition.tensors["text"]
        if text.shape[1:] != self.empty.tensors["text"].shape[1:]:
            return None
        mask = condition.tensors.get("mask")
        counts = self.tokens.expand(len(text), -1) & (True if mask is None else mask.bool().to(self.tokens.device))
        start, full = self.empty.tensors["text"][0].float(), text.float()
        bases = torch.stack([start, torch.zeros_like(start)])
        precision = max(torch.finfo(text.dtype).eps, _FINE)
        ways = [self._factors(full, base, counts, precision) for base in bases]
        _, times, apart = ways[1]
        # scaled down, all tokens need one factor; mixed with the empty prompt, at least the first needs none
        best = ((times > 1 + _ROUNDING) & (apart < _ROUNDING / 2)).long()
        each, middle = (torch.stack([way[i] for way in ways])[best, torch.arange(len(text))] for i in (0, 1))
        if (middle <= 1 + _ROUNDING).all():
            return None
        tensors = condition.tensors | {"text": _moved(full, bases[best], each.unsqueeze(-1)).to(text)}
        if "pooled" in tensors:
            empty = self.empty.tensors["pooled"][0].to(tensors["pooled"])
            bases = torch.stack([empty, torch.zeros_like(empty)]).float()[best]
            tensors["pooled"] = _moved(tensors["pooled"].float(), bases, middle.unsqueeze(-1)).to(tensors["pooled"])
        return Condition(**tensors)

    def _factors(self, text: Tensor, base: Tensor, counts: Tensor, precision: float) -> tuple[Tensor, Tensor, Tensor]:
        """(P, L) how far each token must be moved away from the base, (P,) their median, and (P,) how unlike they are.

        |b + k d|^2 = D, with b the base and d the token seen from there, has one solution beyond the token.
        """
        start, apart = (base - self.bias) / self.weight, (text - base) / self.weight
        a, b, c = apart.square().sum(-1), (start * apart).sum(-1), start.square().sum(-1) - text.shape[-1]
        each = (-b + (b * b - a * c).clamp_min(0).sqrt()) / a.clamp_min(1e-9)
        # the first token of CLIP is the same in all prompts; what lies too near says nothing but rounding errors
        moved = counts & (a > precision * text.shape[-1])
        each = torch.where(moved, each, torch.ones_like(each)).clamp(1, _MOST)
        middles, spreads = [], []
        for row, chosen in zip(each, moved, strict=True):
            values = row[chosen] if chosen.any() else torch.ones_like(row[:1])
            middles.append(values.median())
            spreads.append((values.max() - values.min()) / middles[-1])
        middle = torch.stack(middles)
        return torch.where(moved, each, middle.unsqueeze(-1)), middle, torch.stack(spreads)


def _moved(points: Tensor, bases: Tensor, times: Tensor) -> Tensor:
    return bases + times * (points - bases)


class Strength:
    """The sphere of a guard's model, looked for once per state of its text encoders."""

    def __init__(self) -> None:
        self._kept: tuple[Any, Sphere | None] | None = None

    def sphere(self, denoiser: Denoiser, host: PipelineDenoiser) -> Sphere | None:
        """Returns the sphere on which prompts lie; None where it is not known, e.g. for Stable Diffusion XL."""
        if self._kept is None or self._kept[0] is not denoiser.empty:
            self._kept = denoiser.empty, Sphere.of(host)
        return self._kept[1]
