"""What a ComfyUI network takes besides noisy latents: whether it starts from an image of the user's."""

from typing import Any

import torch


def takes_images(base: Any, form: Any) -> bool:
    """Returns whether latents of an image lie beside the noisy ones, as in inpainting, upscaling and image-to-video.

    A transformer may count its inputs before or after they are cut into patches, so that four times as many channels
    as a latent has can be nothing but the latent.

    Args:
        base: ComfyUI's BaseModel.
        form: The model's latent format.
    """
    channels = form.latent_channels
    taken = base.model_config.unet_config.get("in_channels", channels)
    if taken > channels and taken != channels * _patch(base.diffusion_model):
        return True
    frames = () if form.latent_dimensions == 2 else (1,)
    noise = torch.zeros(1, channels, *frames, 16, 16)
    try:
        beside = base.concat_cond(noise=noise, latent_image=noise, device=noise.device)
    except (
        AttributeError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # it needs one, to say the least
        return True
    return beside is not None


def _patch(network: Any) -> int:
    """Latent pixels of one patch."""
    size = getattr(network, "patch_size", 1)
    sides = size if isinstance(size, list | tuple) else (size, size)
    return int(torch.tensor(sides).prod())
