"""HunyuanImage: latents as they are, time 1000 s, two text encoders; guided by a guider, or told its guidance."""

from typing import Any

from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImage,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from torch import Tensor
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from ..language_models import qwen_vl, tokenizer
from . import Family


def hunyuan_image(distilled: bool = False, guided: bool = False) -> HunyuanImagePipeline:
    network = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=1,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        guidance_embeds=distilled,
        use_meanflow=distilled,
        text_embed_dim=16,
        text_embed_2_dim=16,
        rope_axes_dim=(8, 8),
    )
    autoencoder = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
        scaling_factor=0.75,
    )
    glyphs = T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    pipe = HunyuanImagePipeline(
        FlowMatchEulerDiscreteScheduler(shift=5.0),
        autoencoder,
        qwen_vl(layers=2),
        tokenizer(),
        glyphs,
        ByT5Tokenizer(),
        network,
        AdaptiveProjectedMixGuidance(guidance_scale=3.5) if guided else None,
    )
    pipe.tokenizer_max_length = 256  # of a template of 200 bytes and a prompt; a thousand take long
    return pipe


def guided() -> HunyuanImagePipeline:
    return hunyuan_image(guided=True)


def distilled() -> HunyuanImagePipeline:
    return hunyuan_image(distilled=True)


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return fed["hidden_states"]


def time(fed: dict[str, Any]) -> Tensor:
    return fed["timestep"] / 1000


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


FAMILIES = {
    "hunyuan-image": Family(hunyuan_image, latents, time, answer),
    "hunyuan-image-guided": Family(guided, latents, time, answer, guided={"negative_prompt": ""}),
    "hunyuan-image-distilled": Family(distilled, latents, time, answer, reference="empty prompt"),
}
