"""A ComfyUI VAE as what attribution reads images with; its latents are scaled as the model's network takes them."""

from functools import cached_property
from typing import Any

from torch import Tensor

from ..denoiser import fingerprint
from ..errors import InputError, NotApplicable
from .comfyui_weights import weights_and_patches


class ComfyAutoencoder:
    """VAE and latent format.

    Args:
        vae: A VAE of a ComfyUI graph.
        model: The MODEL (ModelPatcher) that makes its latents; it is not changed.

    Raises:
        InputError: The VAE is empty, as of a checkpoint without one.
    """

    def __init__(self, vae: Any, model: Any):
        if getattr(vae, "first_stage_model", None) is None:
            raise InputError("this VAE is empty, as of a checkpoint that holds none: load one with Load VAE")
        self.vae, self._base = vae, model.model

    @property
    def factor(self) -> int:
        """The number of pixels per latent pixel, along one side; sizes of images are multiples."""
        return int(self.vae.spacial_compression_encode())

    @cached_property
    def autoencoder_identity(self) -> str:
        """A digest that is equal for VAEs of equal weights whose latents are scaled alike."""
        weights, _ = weights_and_patches(self.vae.patcher, "")
        form = self._base.latent_format
        scales = (form.scale_factor, getattr(form, "shift_factor", None))
        return fingerprint(weights, type(form).__name__, *scales, self.vae.vae_dtype)

    def encode_image(self, image: Tensor) -> Tensor:
        """Returns latents (B, C, h, w) float32 of images in [0, 1], (B, 3, H, W).

        Raises:
            NotApplicable: The VAE is one of videos or sound.
            InputError: The model takes other latents.
        """
        stop_if_asked()
        latent = self.vae.encode(image.movedim(1, -1)).float()
        if latent.ndim != 4:
            raise NotApplicable("this VAE is one of videos or sound: attribution is for images")
        channels = self._base.latent_format.latent_channels
        if latent.shape[1] != channels:
            raise InputError(
                f"this VAE makes latents of {latent.shape[1]} channels and the model reads {channels}: "
                "connect the VAE that belongs to the model"
            )
        return self._base.process_latent_in(latent)

    def decode(self, latent: Tensor) -> Tensor:
        """Returns images in [0, 1], (B, 3, H, W) float32, of latents (B, C, h, w)."""
        stop_if_asked()
        pixels = self.vae.decode(self._base.process_latent_out(latent))
        return pixels.movedim(-1, 1).float()


def stop_if_asked() -> None:
    """Raises ComfyUI's own interruption if the user wants to stop."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()
