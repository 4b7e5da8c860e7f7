"""What a prompt adds to the predicted noise, against a baseline that has not memorized the image."""

import torch
from torch import Tensor

from ..denoiser import Condition, Denoiser, NoiseLevel
from ..errors import InputError

Baseline = None | Condition | Tensor | tuple[Denoiser, Condition | Tensor]


class Difference:
    """g(x) = noise(x, c) - noise(x, base) for noisy latents that each have a level and a prompt.

    Args:
        denoiser: The model.
        x: Noisy latents, (B, C, H, W).
        level: The noise level, one or one per row of x.
        condition: One prompt, or one per row of x.
        baseline: None for what the model's reference compares with, e.g. the empty prompt; another condition of the
            same model; or (another denoiser, its condition).

    Attributes:
        x: The latents as float32 on the model's device, usable with gradients whatever mode it was made in.
        sigma: The latents' noise (B,), float32 on that device.

    Raises:
        InputError: Shapes do not fit, NaN in x, or a level without noise.
        NotApplicable: The baseline is None, and `Denoiser.require_guidance` says why there is none.
    """

    def __init__(
        self, denoiser: Denoiser, x: Tensor, level: NoiseLevel, condition: Condition | Tensor, baseline: Baseline = None
    ):
        if x.ndim != 4 or not x.numel():
            raise InputError(f"latents are (B, C, H, W), not {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise InputError("the latent holds NaN or infinity: there is nothing to be read off it")
        prompts, self.width = Condition.of(condition), 1.0
        if baseline is None:
            denoiser.require_guidance()
            asked = denoiser.branches(prompts)
            prompts, baseline, self.width = asked.upper, asked.lower, asked.width
        other, against = _baseline(denoiser, baseline)
        if other is not denoiser and other.channels != x.shape[1]:
            raise InputError(
                f"the baseline's latents have {other.channels} channels, these have {x.shape[1]}: "
                "compare models of one latent space"
            )
        with torch.inference_mode(False), torch.no_grad():
            self.denoiser, self.other = denoiser, other
            self.x = x.detach().to(denoiser.device, torch.float32, copy=True)
            self.level = level.to(denoiser.device).expand(len(x))
            self.sigma = self.level.sigma.float()
            self.condition = _one_per_row(prompts, len(x), "conditions")
            self.against = _one_per_row(against, len(x), "conditions of the baseline")
        if not (self.sigma > 0).all():
            raise InputError("a level without noise (sigma 0) has no score: take the latent before the last step")
        self._joined = other is denoiser and _fit_one_call(self.condition, self.against)

    def __call__(self, x: Tensor, rows: Tensor, *, grad: bool = False) -> Tensor:
        """Returns g, float32, at latents (R, C, H, W) that take level and prompts from those rows of `self.x`.

        Raises:
            NonFiniteError: The model answered with NaN or infinity.
            OutOfMemory: The device has no memory for so many rows.
        """
        level, count = self.level[rows.to(self.sigma.device)], len(rows)
        prompts, against = self.condition[rows], self.against[rows]
        if self._joined:
            levels, both = NoiseLevel.cat([level, level]), Condition.cat([prompts, against])
            noise = self.denoiser.predict(torch.cat([x, x]), levels, both, grad=grad).noise
            return (noise[:count] - noise[count:]) / self.width
        noise = self.denoiser.predict(x, level, prompts, grad=grad).noise
        base = self.other.predict(x, level, against, grad=grad).noise
        return (noise - base.to(noise.device)) / self.width

    def differentiable(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns copies of those latents, and g at them, with the graph between both."""
        point = self.x[rows].clone().requires_grad_()
        return point, self(point, rows, grad=True)


def _baseline(
    denoiser: Denoiser, baseline: Condition | Tensor | tuple[Denoiser, Condition | Tensor]
) -> tuple[Denoiser, Condition]:
    if isinstance(baseline, Condition | Tensor):
        return denoiser, Condition.of(baseline)
    if not isinstance(baseline, tuple) or len(baseline) != 2 or not isinstance(baseline[0], Denoiser):
        raise InputError("the baseline is None, a condition, or a pair (another denoiser, its condition)")
    return baseline[0], Condition.of(baseline[1])


def _one_per_row(condition: Condition, rows: int, name: str) -> Condition:
    """As many rows as latents, in copies that serve gradients even if made in inference mode."""
    if len(condition) not in (1, rows):
        raise InputError(f"{len(condition)} {name} do not fit {rows} latents: give one, or one per latent")
    chosen = condition[[0] * rows] if len(condition) == 1 else condition
    return Condition(**{name: tensor.detach().clone() for name, tensor in chosen.tensors.items()})


def _fit_one_call(one: Condition, other: Condition) -> bool:
    """Whether the rows of both can share a call: prompts longer than the encoder reads at once cannot."""
    if one.tensors.keys() != other.tensors.keys():
        return False
    return all(one.tensors[name].shape[1:] == other.tensors[name].shape[1:] for name in one.tensors)
