"""The sampler's first network call, read for what it says about memorization.

With guidance the network is asked with both branches on x_T anyway. Where that is at the level that the score is
defined at, and the negative branch is the empty prompt, nothing has to be computed again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.network_calls import read_call
from ..condition import is_empty, own_copy, with_extras, without_extras
from ..denoiser import Condition, Denoiser, Prediction
from ..errors import NonFiniteError, NotApplicable
from ..protocols import PipelineDenoiser
from ..signals.guidance import Guidance
from ..signals.memorization import MemorizationResult
from ..signals.rings import ring_energy

MOST_UNLIKE = 0.2  # of mean and standard deviation of starting latents to 0 and 1; the smallest have 256 values


@dataclass(frozen=True)
class FirstStep:
    """The sampler's first call, one row per image.

    Attributes:
        noise: The starting noise x_T, (B, C, H, W).
        positive, negative: The conditions of the two branches.
        guidance: The guidance vector (B, C, H, W) against the empty prompt at the score's level, if the call gives it.
    """

    noise: Tensor
    positive: Condition
    negative: Condition
    guidance: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The latent's shape (C, H, W)."""
        channels, height, width = self.noise.shape[1:]
        return channels, height, width

    @staticmethod
    def read(
        denoiser: Denoiser, host: PipelineDenoiser, arguments: dict[str, Any], output: Any, images: int
    ) -> "FirstStep":
        """Reads the network's arguments and its output. Raises NotApplicable where there is nothing to judge."""
        x, time, condition, raw = read_call(host, arguments, output)
        if len(x) == images:
            raise NotApplicable(
                "sampling without guidance (guidance_scale 1), so that there is no unconditional branch: raise the "
                "scale above 1"
            )
        if len(x) != 2 * images:
            raise NotApplicable(
                f"the network is asked with {len(x)} rows for {images} images, a layout that is not known: check the "
                "prompt with guard.check() instead"
            )
        noise = x[images:].detach().float()
        spread, centre = noise.flatten(1).std(1) - 1, noise.flatten(1).mean(1)
        if not (torch.stack([spread, centre]).abs() <= MOST_UNLIKE).all():  # so that NaN is unlike, too
            raise NotApplicable(
                "sampling does not start from standard normal noise, where a check says nothing: leave out latents, or "
                "give normal ones"
            )
        negative, positive = (own_copy(condition[rows]) for rows in (slice(0, images), slice(images, None)))
        empty = is_empty(negative, denoiser.empty, positive)
        level = denoiser.levels.pure_noise
        guidance = None
        if empty and torch.allclose(time.float().flatten()[:1].cpu(), level.time.float().cpu(), atol=1e-6):
            rows = level.to(x.device).expand(len(x))
            pull = Prediction.from_output(denoiser.prediction_type, raw, x, rows).pull
            guidance = pull[images:] - pull[:images]
            if not torch.isfinite(guidance).all():
                raise NonFiniteError("the model answered with NaN or infinity: no score can be drawn from that")
        return FirstStep(noise, positive, negative, guidance)


class PrivateDraws:
    """Extra draws beside x_T for calibrations of more than one: their empty branch is asked once per model."""

    def __init__(self) -> None:
        self._kept: tuple[Any, Guidance] | None = None

    def guidance(self, denoiser: Denoiser, noise: Tensor, key: Any) -> Guidance:
        """Returns the guidance on noise (n - 1, C, H, W) that `key` stands for, together with the model."""
        if self._kept is None or self._kept[0] != key:
            self._kept = key, Guidance(denoiser, noise)
        return self._kept[1]


def look(denoiser: Denoiser, step: FirstStep, numbers: list[int], private: Guidance | None) -> MemorizationResult:
    """Measures each image's guidance on its own x_T and on the private draws, which images of a prompt share.

    Args:
        denoiser: The model.
        step: The sampler's first call.
        numbers: Which prompt each image belongs to.
        private: Guidance on further draws, or None for x_T alone.

    Returns:
        One row per image, without alignment; `forward_rows` are those that the look cost beside the sampler's own.

    Raises:
        NonFiniteError, OutOfMemory: As in `Guidance`.
    """
    rows = 0
    first = step.guidance
    if first is None:
        first, rows = _at_pure_noise(denoiser, step)
    vectors = first.unsqueeze(1)
    if private is not None:
        before = private.forward_rows
        firsts = [numbers.index(number) for number in sorted(set(numbers))]
        shared = private(without_extras(step.positive[firsts], denoiser.empty))
        rows += private.forward_rows - before
        vectors = torch.cat([vectors, shared[torch.tensor(numbers)]], dim=1)
    iso = vectors.flatten(2).norm(dim=-1).mean(1).cpu()
    return MemorizationResult(
        score=iso,
        iso=iso,
        aniso=None,
        aniso_flat=None,
        spectrum=ring_energy(vectors.mean(1)).cpu(),
        draws=vectors.shape[1],
        forward_rows=rows,
    )


def _at_pure_noise(denoiser: Denoiser, step: FirstStep) -> tuple[Tensor, int]:
    """Guidance vectors (B, C, H, W) on x_T at the score's own level, and the rows they cost."""
    images, level = len(step.noise), denoiser.levels.pure_noise
    empty = with_extras(denoiser.empty, step.positive)
    if empty.tensors["text"].shape[1:] == step.positive.tensors["text"].shape[1:]:
        both = Condition.cat([step.positive, empty[[0] * images]])
        pull = denoiser.predict(torch.cat([step.noise, step.noise]), level, both).pull
        return pull[:images] - pull[images:], 2 * images
    # a prompt longer than the encoder reads at once cannot share a call
    conditional = denoiser.predict(step.noise, level, step.positive).pull
    return conditional - denoiser.predict(step.noise, level, empty).pull, 2 * images
