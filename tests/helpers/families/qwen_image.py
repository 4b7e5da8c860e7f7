"""Qwen-Image: packed latents, time s, as many tokens as the prompt has, an autoencoder for videos."""

from typing import Any

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor

from ..language_models import qwen_vl, tokenizer
from . import Family


def qwen_image() -> QwenImagePipeline:
    network = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.4],
        latents_std=[1.5, 2.0, 0.5, 0.8],
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    return QwenImagePipeline(scheduler, autoencoder, qwen_vl(), tokenizer(), network)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return pipe._unpack_latents(fed["hidden_states"], 16, 16, pipe.vae_scale_factor)[:, :, 0]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (pipe._pack_latents(out, *out.shape),)


TWICE = {"negative_prompt": "", "true_cfg_scale": 4.0}
FAMILIES = {"qwen-image": Family(qwen_image, latents, lambda fed: fed["timestep"], answer, guided=TWICE)}
