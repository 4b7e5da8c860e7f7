"""The base of a LoRA as a denoiser of its own, while the LoRA is on: what has not memorized the LoRA's images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..condition import Condition
from ..denoiser import Denoiser
from .applying import Applier


class Base(Denoiser):
    """Answers as the base does, though its network holds the LoRA: that is lifted for each call.

    Args:
        applier: The LoRA's.
    """

    def __init__(self, applier: Applier):
        self._applier, self._inner = applier, applier.denoiser
        inner: Any = self._inner
        self.prediction_type, self.levels, self.reference = inner.prediction_type, inner.levels, inner.reference
        self.scales, self.family, self.device, self.dtype = inner.scales, inner.family, inner.device, inner.dtype

    @property
    def input_dtype(self) -> Any:
        return self._inner.input_dtype

    def output(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Returns the base's own output; see `Denoiser.output`."""
        with self._applier.lifted() as inner:
            return inner.output(x, time, condition)

    def encode(self, prompt: str) -> Condition:
        """Returns the prompt's condition, as the base's own text encoders have it."""
        with self._applier.lifted() as inner:
            return inner.encode(prompt)

    @property
    def empty(self) -> Condition:
        with self._applier.lifted() as inner:
            return inner.empty

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns (C, H, W) of the latents, as the model has them."""
        return self._inner.latent_shape(height, width)

    def pixels(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Returns height and width of the images whose latents are (C, H, W)."""
        return self._inner.pixels(shape)
