"""Flux.2: packed latents, time s; dev is told its guidance, klein is guided by two branches, or distilled."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from torch import Tensor

from ..language_models import mistral, qwen3, tokenizer
from . import Family


def network(guidance: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )


def autoencoder() -> AutoencoderKLFlux2:
    made = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    made.bn.running_mean.copy_(torch.randn(16))
    made.bn.running_var.copy_(torch.rand(16) + 0.5)
    return made


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)


def flux_2() -> Flux2Pipeline:
    return Flux2Pipeline(scheduler(), autoencoder(), mistral(layers=30), tokenizer("left"), network(True))


def klein() -> Flux2KleinPipeline:
    return Flux2KleinPipeline(scheduler(), autoencoder(), qwen3(layers=27), tokenizer(), network(False))


def klein_distilled() -> Flux2KleinPipeline:
    return Flux2KleinPipeline(
        scheduler(), autoencoder(), qwen3(layers=27), tokenizer(), network(False), is_distilled=True
    )


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    rows = fed["hidden_states"].transpose(1, 2).reshape(len(fed["hidden_states"]), 16, 4, 4)
    return pipe._unpatchify_latents(rows)


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (pipe._pack_latents(pipe._patchify_latents(out)),)


def time(fed: dict[str, Any]) -> Tensor:
    return fed["timestep"]


FAMILIES = {
    "flux-2": Family(flux_2, latents, time, answer, reference="empty prompt"),
    "flux-2-klein": Family(
        klein, latents, time, answer, options={"guidance_scale": 1.0}, guided={"guidance_scale": 4.0}
    ),
    "flux-2-klein-distilled": Family(klein_distilled, latents, time, answer, reference="empty prompt"),
}
