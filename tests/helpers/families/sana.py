"""Sana: time 1000 s, noise - x0. Sprint: x = cos(t) x0 + sin(t) noise for its scheduler; its network is fed the same x
and time as flow matching has them, and answers alike."""

import inspect
from typing import Any

from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)
from torch import Tensor

from ..pipelines import WIDTH
from ..text_models import gemma2, gemma_tokenizer
from . import Family


def autoencoder() -> AutoencoderDC:
    """Quarters each side, so 32x32 pixels, the least that the pipelines make, become 8x8 latents."""
    blocks: Any = ("ResBlock",) * 3  # diffusers declares a tuple of one
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        upsample_block_type="interpolate",
        downsample_block_type="conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41,
    )


def tokenizer() -> Any:
    """Takes each line of the instruction that stands before every prompt for one token."""
    return gemma_tokenizer(*inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)


def network(**options: Any) -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=8,
        **options,
    )


def sana() -> SanaPipeline:
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(tokenizer(), gemma2(), autoencoder(), network(), scheduler)


def sprint() -> SanaSprintPipeline:
    distilled = network(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    scheduler: Any = SCMScheduler()
    return SanaSprintPipeline(tokenizer(), gemma2(), autoencoder(), distilled, scheduler)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


SIZES = {"use_resolution_binning": False}
FAMILIES = {
    "sana": Family(
        sana,
        latents,
        lambda fed: fed["timestep"] / 1000,
        answer,
        options=SIZES | {"guidance_scale": 1.0},
        guided={"guidance_scale": 4.5},
        blank=False,
        pixels=32,
    ),
    "sana-sprint": Family(
        sprint,
        latents,
        lambda fed: fed["timestep"].clamp(max=1),
        answer,
        options=SIZES | {"intermediate_timesteps": None},
        reference="empty prompt",
        pixels=32,
    ),
}
