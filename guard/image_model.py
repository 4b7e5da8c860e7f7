"""A model that can be shown images: a denoiser, what encodes and decodes its images, and their size."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from .denoiser import Condition, Denoiser, fingerprint, weights_of
from .errors import InputError, NotApplicable


class Autoencoder(Protocol):
    """What images are read with; denoisers of pipelines are one."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Latents (B, C, h, w), the posterior mean scaled, of images in [0, 1], (B, 3, H, W)."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Images in [0, 1], (B, 3, H, W), of latents (B, C, h, w)."""
        ...


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
    autoencoder: Autoencoder | None = None
    size: tuple[int, int] | None = None
    _key: list[str] = field(default_factory=list, repr=False, compare=False, kw_only=True)

    @property
    def coder(self) -> Autoencoder:
        """Its autoencoder. Raises NotApplicable if there is none."""
        coder: Any = self.autoencoder or self.denoiser
        if not (hasattr(coder, "encode_image") and hasattr(coder, "decode")):
            raise NotApplicable(f"{self._called} has no autoencoder, so it cannot be shown an image")
        return coder

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of its images. Raises InputError where that is not known."""
        if self.size is not None:
            return self.size
        factor = getattr(getattr(self.denoiser, "pipe", None), "vae_scale_factor", None)
        if factor is None:
            raise InputError(f"the image size of {self._called} is not known: give size=(height, width)")
        _, height, width = self.denoiser.latent_shape()
        return height * factor, width * factor

    @property
    def autoencoder_key(self) -> str:
        """Equal for models that share autoencoder and size, so that an image is encoded once for all of them."""
        if not self._key:
            coder = self.coder
            self._key.append(f"{self.autoencoder_identity or id(coder)} {self.pixels}")
        return self._key[0]

    @property
    def autoencoder_identity(self) -> str | None:
        """What the host says that the autoencoder is, or a digest of a pipeline's; None where neither is known."""
        coder: Any = self.autoencoder or self.denoiser
        if hasattr(coder, "identity"):
            return coder.identity
        vae = getattr(getattr(coder, "pipe", None), "vae", None)
        return None if vae is None else fingerprint(weights_of([vae]), str(vae.config))

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of prompts. Raises NotApplicable for a model that reads no text."""
        encode = getattr(self.denoiser, "encode", None)
        if encode is None:
            raise NotApplicable(f"{self._called} cannot read prompts: leave the prompt out")
        return encode(list(prompts))

    @property
    def _called(self) -> str:
        return self.name
