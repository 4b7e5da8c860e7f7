"""ComfyUI models that look at images: a MODEL with its VAE, and a CLIP_VISION."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import NonFiniteError
from ..pixels import fitted
from .comfyui import ComfyDenoiser
from .comfyui_autoencoder import ComfyAutoencoder, stop_if_asked

PER_CALL = 16


class ComfyImageDenoiser(ComfyDenoiser):
    """MODEL, CLIP and VAE for images of one size, as pipelines are.

    Args:
        model, clip: What `ComfyDenoiser` takes.
        vae: What `ComfyAutoencoder` takes, which is `coder` here.
        size: Height and width in pixels that the model makes images of.

    Raises:
        InputError: The VAE is empty, or latents have no such size.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, size: tuple[int, int]):
        super().__init__(model, clip)
        self.coder, self.size = ComfyAutoencoder(vae, model), size
        self.latent_shape()

    @property
    def autoencoder_identity(self) -> str:
        """The identity of the autoencoder; see `ComfyAutoencoder`."""
        return self.coder.autoencoder_identity

    def latent_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """Returns the latents' shape (C, H, W), for its own images or those of that size."""
        height, width = self.size if height is None or width is None else (height, width)
        return super().latent_shape(height, width)

    def encode_image(self, image: Tensor) -> Tensor:
        """See `ComfyAutoencoder`."""
        return self.coder.encode_image(image)

    def decode(self, latent: Tensor) -> Tensor:
        """See `ComfyAutoencoder`."""
        return self.coder.decode(latent)


class ComfyVisionEncoder:
    """A CLIP_VISION as an encoder of lineage: CLIP, SigLIP or DINO, of any size.

    Args:
        vision: The output of Load CLIP Vision.
        name: What people call it.
    """

    def __init__(self, vision: Any, name: str = "the CLIP Vision model"):
        self.vision, self.name = vision, name
        self.size: tuple[int, int] = (vision.image_size, vision.image_size)

    def encode(self, images: Sequence[Tensor]) -> NDArray[np.float32]:
        """Embeds images (1, 3, H, W) in [0, 1] of any sizes; returns (B, D). Raises NonFiniteError for NaN."""
        parts = []
        for start in range(0, len(images), PER_CALL):
            stop_if_asked()
            pixels = torch.cat([fitted(image, self.size) for image in images[start : start + PER_CALL]])
            answer = self.vision.encode_image(pixels.movedim(1, -1))["image_embeds"].float().cpu()
            parts.append(answer.mean(1) if answer.ndim == 3 else answer)  # SigLIP answers with tokens
        vectors = torch.cat(parts)
        if not torch.isfinite(vectors).all():
            raise NonFiniteError(f"{self.name} answered with NaN or infinity: load another")
        return vectors.numpy()
