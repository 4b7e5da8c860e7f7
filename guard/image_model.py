"""A model that can be shown images: a denoiser, what encodes and decodes its images, and their size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from .denoiser import Condition, Denoiser
from .errors import InputError, NotApplicable
from .pixels import fitted
from .protocols import ImageDenoiser, PromptEncoder
from .signals.batching import in_batches

PER_CALL, PIXELS = 16, 2**18  # most images that an autoencoder is given at once, and pixels; pipelines give it one
Answer = TypeVar("Answer")


@runtime_checkable
class _Identified(Protocol):
    """An autoencoder whose host says what it is."""

    @property
    def autoencoder_identity(self) -> str | None: ...


@dataclass(frozen=True)
class ImageModel:
    """A model that can be shown images.

    Attributes:
        name: What people call the model, e.g. "the model".
        denoiser: The model.
        autoencoder: What encodes and decodes its images; the denoiser itself where its host has that.
        size: Height and width in pixels of the images that it makes by default; known for pipelines.
    """

    name: str
    denoiser: Denoiser
    autoencoder: ImageDenoiser | None = None
    size: tuple[int, int] | None = None
    _key: list[str] = field(default_factory=list, repr=False, compare=False, kw_only=True)

    @property
    def coder(self) -> ImageDenoiser:
        """The model's autoencoder. Raises NotApplicable if there is none."""
        coder = self.autoencoder or self.denoiser
        if not isinstance(coder, ImageDenoiser):
            raise NotApplicable(f"{self._called} has no autoencoder, so it cannot be shown an image")
        return coder

    @property
    def pixels(self) -> tuple[int, int]:
        """The height and width of the model's images. Raises InputError where that is not known."""
        if self.size is not None:
            return self.size
        pixels = self.denoiser.pixels(self.denoiser.latent_shape())
        if pixels is None:
            raise InputError(f"the image size of {self._called} is not known: give size=(height, width)")
        return pixels

    @property
    def autoencoder_key(self) -> str:
        """A key that models share whose autoencoder and size are equal, so that an image is encoded once for all."""
        if not self._key:
            coder = self.coder
            self._key.append(f"{self.autoencoder_identity or id(coder)} {self.pixels}")
        return self._key[0]

    @property
    def autoencoder_identity(self) -> str | None:
        """What the host says that the autoencoder is, or a digest of a pipeline's; None where neither is known."""
        coder = self.autoencoder or self.denoiser
        return coder.autoencoder_identity if isinstance(coder, _Identified) else None

    def in_batches(self, images: Sequence[Tensor], ask: Callable[[Tensor], Answer]) -> list[Answer]:
        """Asks about images, brought to the model's size, as many at a time as its autoencoder has memory for.

        Args:
            images: Each (1, 3, H, W) in [0, 1].
            ask: ask(images (B, 3, height, width)) -> what is answered about them.

        Returns:
            The answers, one for each time it was asked.

        Raises:
            OutOfMemory: The device has no memory for a single image.
        """
        answers: list[Answer] = []
        height, width = self.pixels

        def some(rows: slice) -> Tensor:
            batch = torch.cat([fitted(image, (height, width)) for image in images[rows]])
            answers.append(ask(batch))
            return batch

        for _ in in_batches(some, len(images), max(1, min(PER_CALL, PIXELS // (height * width)))):
            pass
        return answers

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Returns the condition of prompts. Raises NotApplicable for a model that reads no text."""
        if not isinstance(self.denoiser, PromptEncoder):
            raise NotApplicable(f"{self._called} cannot read prompts: leave the prompt out")
        return self.denoiser.encode(list(prompts))

    @property
    def _called(self) -> str:
        return self.name
