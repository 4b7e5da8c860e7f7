"""HiDream: time 1000 s, and x0 - noise for an answer."""

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ..pipelines import WIDTH, clip_tokenizer, t5_encoder, t5_tokenizer, vae
from ..text_models import llama, llama_tokenizer
from . import Family


def long_clip() -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=WIDTH,
        max_position_embeddings=248,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return CLIPTextModelWithProjection(config)


def long_tokenizer() -> Any:
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 248
    return tokenizer


def hidream() -> HiDreamImagePipeline:
    axes: Any = (4, 2, 2)  # diffusers declares two
    network = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=axes,
        max_resolution=(16, 16),
        llama_layers=[0, 1],
    )
    pipe = HiDreamImagePipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae(shift_factor=0.1, scaling_factor=0.5),
        long_clip(),
        long_tokenizer(),
        long_clip(),
        long_tokenizer(),
        t5_encoder(),
        t5_tokenizer(),
        llama(),
        llama_tokenizer(),
        network,
    )
    pipe.default_sample_size = 8
    return pipe


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (-out,)


UNGUIDED, GUIDED = {"guidance_scale": 1.0}, {"guidance_scale": 5.0}
FAMILIES = {
    "hidream": Family(
        hidream,
        latents,
        lambda fed: fed["timesteps"] / 1000,
        answer,
        options=UNGUIDED,
        guided=GUIDED,
        resized=True,
    )
}
