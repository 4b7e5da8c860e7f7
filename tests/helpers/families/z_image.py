"""Z-Image: lists of latents (C, 1, H, W), time 1 - s, and x0 - noise for an answer; the prompts' branch comes first."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor

from ..pipelines import WIDTH, vae
from ..text_models import qwen3, qwen_tokenizer
from . import Family


def z_image(**scheduler: Any) -> ZImagePipeline:
    network = ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 2, 2],
        axes_lens=[1024, 32, 32],
    )
    autoencoder = vae(shift_factor=0.1, scaling_factor=0.5)
    return ZImagePipeline(FlowMatchEulerDiscreteScheduler(**scheduler), autoencoder, qwen3(), qwen_tokenizer(), network)


def turbo() -> ZImagePipeline:
    return z_image(shift=3.0)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return torch.stack(fed["x"])[:, :, 0]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return ([-row[:, None] for row in out],)


def time(fed: dict[str, Any]) -> Tensor:
    return 1 - fed["t"]


UNGUIDED = {"guidance_scale": 0.0}  # a scale of 1 is guidance for this pipeline
FAMILIES = {
    "z-image": Family(
        z_image, latents, time, answer, options=UNGUIDED, guided={"guidance_scale": 4.0}, prompts_first=True
    ),
    "z-image-turbo": Family(turbo, latents, time, answer, options=UNGUIDED),
}
