"""A diffusers autoencoder: images to latents, scaled as the network takes them, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..identity import fingerprint, weights_of


def decode(vae: Any, latent: Tensor, device: torch.device) -> Tensor:
    """Returns images in [0, 1], (B, 3, H, W) float32, of clean latents (B, C, h, w)."""
    scale, shift = _latent_scale(vae, device)
    with torch.no_grad(), _full_precision(vae):
        z = latent.to(device).float() / scale + shift
        image = vae.decode(z.to(vae.dtype), return_dict=False)[0]
    return (image.float() / 2 + 0.5).clamp(0, 1)


def encode(vae: Any, image: Tensor, device: torch.device) -> Tensor:
    """Returns latents (B, C, h, w) float32, the posterior mean scaled, of images in [0, 1], (B, 3, H, W)."""
    scale, shift = _latent_scale(vae, device)
    with torch.no_grad(), _full_precision(vae):
        coded = vae.encode((image.to(device).float() * 2 - 1).to(vae.dtype))
        # the deterministic ones name it in two ways
        z = coded.latent_dist.mode() if hasattr(coded, "latent_dist") else next(iter(coded.values()))
    return (z.float() - shift) * scale


def identity(vae: Any) -> str:
    """Returns the digest of its weights and configuration."""
    return fingerprint(weights_of([vae]), str(vae.config))


def _latent_scale(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """(scale, shift) with latent = (code - shift) * scale, each broadcastable to (B, C, h, w)."""
    config = vae.config
    scale = torch.tensor(float(config.scaling_factor), device=device)
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
