"""A diffusers autoencoder: images to latents, scaled as the network takes them, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..identity import fingerprint
from ..memory import memory_needed
from .modules import weights


def decode(vae: Any, latent: Tensor, device: torch.device) -> Tensor:
    """Returns images in [0, 1], (B, 3, H, W) float32, of clean latents (B, C, h, w).

    Raises OutOfMemory where the device has no memory for so many.
    """
    with torch.no_grad(), _full_precision(vae), memory_needed(_too_many("decode", latent)):
        scale, shift = _latent_scale(vae, latent, device)
        z = latent.to(device).float() / scale + shift
        z = z.unsqueeze(2) if _takes_frames(vae) else z
        image = vae.decode(z.to(vae.dtype), return_dict=False)[0]
        image = image[:, :, 0] if _takes_frames(vae) else image
    return (image.float() / 2 + 0.5).clamp(0, 1)


def encode(vae: Any, image: Tensor, device: torch.device) -> Tensor:
    """Returns latents (B, C, h, w) float32, the posterior mean scaled, of images in [0, 1], (B, 3, H, W).

    Raises OutOfMemory where the device has no memory for so many.
    """
    with torch.no_grad(), _full_precision(vae), memory_needed(_too_many("encode", image)):
        image = image.to(device).float() * 2 - 1
        image = image.unsqueeze(2) if _takes_frames(vae) else image
        coded = vae.encode(image.to(vae.dtype))
        # the deterministic ones name it in two ways
        names = [name for name in ("latents", "latent") if hasattr(coded, name)]
        z = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else getattr(coded, names[0])
        z = z[:, :, 0] if _takes_frames(vae) else z
        scale, shift = _latent_scale(vae, z, device)
    return (z.float() - shift) * scale


def _too_many(way: str, given: Tensor) -> str:
    remedy = "give fewer at a time" if len(given) > 1 else "use float16 or bfloat16, offloading, or a smaller image"
    return f"the autoencoder has no memory to {way} {tuple(given.shape)} at once: {remedy}"


def identity(vae: Any) -> str:
    """Returns the digest of its weights and configuration."""
    return fingerprint(weights(vae), str(vae.config))


def _takes_frames(vae: Any) -> bool:
    """Whether it is one for videos, (B, C, T, H, W), an image being one frame."""
    return "temperal_downsample" in vae.config


def _latent_scale(vae: Any, like: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """(scale, shift) with latent = (code - shift) * scale, each broadcastable to the latents given, (B, C, h, w)."""
    config = vae.config
    statistics = getattr(vae, "bn", None)
    if statistics is not None:
        # of each place in patches of 2x2, which are channels there
        std = (statistics.running_var.float() + config.batch_norm_eps).sqrt()
        mean, std = (
            v.to(device).float().view(1, -1, 2, 2).repeat(1, 1, like.shape[2] // 2, like.shape[3] // 2)
            for v in (statistics.running_mean, std)
        )
        return 1 / std, mean
    factor = config.get("scaling_factor")
    scale = torch.tensor(1.0 if factor is None else float(factor), device=device)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (torch.tensor(v, device=device).float().view(1, -1, 1, 1) for v in (mean, std))
        return scale / std, mean
    return scale, torch.tensor(float(config.get("shift_factor") or 0.0), device=device)


@contextmanager
def _full_precision(vae: Any) -> Iterator[None]:
    """The autoencoder in float32 for the time being, if it overflows in float16 (and says so)."""
    dtype = vae.dtype
    if dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    try:
        vae.to(torch.float32)
        yield
    finally:
        vae.to(dtype)  # exact: every float16 is a float32
