"""Chroma: packed latents, time s, T5 tokens with a mask that keeps one of the padding."""

from typing import Any

from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ..pipelines import WIDTH, t5_encoder, t5_tokenizer, vae
from . import Family


def chroma() -> ChromaPipeline:
    network = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return ChromaPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae(shift_factor=0.1, scaling_factor=0.5),
        t5_encoder(),
        t5_tokenizer(),
        network,
    )


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return pipe._unpack_latents(fed["hidden_states"], 16, 16, pipe.vae_scale_factor)


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (pipe._pack_latents(out, *out.shape),)


FAMILIES = {
    "chroma": Family(
        chroma,
        latents,
        lambda fed: fed["timestep"],
        answer,
        options={"guidance_scale": 1.0},
        guided={"guidance_scale": 5.0},
    )
}
