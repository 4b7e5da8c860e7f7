"""Flux with a ControlNet: the same network, told more than the prompt while its pipeline samples."""

from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxControlNetPipeline

from ..pipelines import WIDTH, flux
from . import Family
from .flux import answer, latents


def flux_controlnet() -> FluxControlNetPipeline:
    plain = flux()
    controlnet = FluxControlNetModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    pipe = FluxControlNetPipeline(**plain.components, controlnet=controlnet)
    pipe.default_sample_size = 8
    return pipe


CONTROL: dict[str, Any] = {"control_image": torch.zeros(1, 3, 16, 16)}
FAMILIES = {
    "flux-controlnet": Family(
        flux_controlnet,
        latents,
        lambda fed: fed["timestep"],
        answer,
        options=CONTROL,
        reference="empty prompt",
        sampled=False,
        attached=False,
    )
}
