"""Tiny pipelines with random weights, one per family, built from configs alone: no files, no network."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WIDTH = 16  # of all text embeddings


def clip_tokenizer() -> CLIPTokenizer:
    """One token per letter; 77 at most, as CLIP."""
    pieces = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, [], model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5Tokenizer(pieces, extra_ids=0, model_max_length=512)


def clip_encoder(projection: bool = False) -> Any:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=WIDTH,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5_encoder() -> T5EncoderModel:
    config = T5Config(vocab_size=30, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    return T5EncoderModel(config)


def vae(channels: int = 4, **options: Any) -> AutoencoderKL:
    """Halves each side once, so 16x16 pixels become 8x8 latents."""
    blocks: dict[str, Any] = {  # diffusers declares each a tuple of one
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
    }
    return AutoencoderKL(
        **blocks,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **options,
    )


def unet(**options: Any) -> UNet2DConditionModel:
    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(defaults | options))


def ddim(**options: Any) -> Any:
    """Stable Diffusion's schedule, a DDIMScheduler, which no pipeline's annotations take."""
    defaults: dict[str, Any] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**(defaults | options))


def stable_diffusion(scheduler: Any = None, **network: Any) -> StableDiffusionPipeline:
    none: Any = None  # of what the annotations want
    return StableDiffusionPipeline(
        vae(), clip_encoder(), clip_tokenizer(), unet(**network), scheduler or ddim(), none, none, none, False
    )


def stable_diffusion_2() -> StableDiffusionPipeline:
    return stable_diffusion(ddim(prediction_type="v_prediction"))


def stable_diffusion_xl() -> StableDiffusionXLPipeline:
    network = unet(
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae(), clip_encoder(), clip_encoder(True), clip_tokenizer(), clip_tokenizer(), network, ddim()
    )


def stable_diffusion_3() -> StableDiffusion3Pipeline:
    network = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    t5 = T5EncoderModel(T5Config(vocab_size=30, d_model=2 * WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    return StableDiffusion3Pipeline(
        network,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        clip_encoder(True),
        clip_tokenizer(),
        clip_encoder(True),
        clip_tokenizer(),
        t5,
        t5_tokenizer(),
    )


def flux(guidance_embeds: bool = False) -> FluxPipeline:
    network = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    pipe = FluxPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance_embeds),
        vae(shift_factor=0.1, scaling_factor=0.5),
        clip_encoder(),
        clip_tokenizer(),
        t5_encoder(),
        t5_tokenizer(),
        network,
    )
    pipe.default_sample_size = 8
    return pipe


def flux_guided() -> FluxPipeline:
    return flux(guidance_embeds=True)


def pixart_transformer(sample_size: int) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        sample_size=sample_size,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,  # the size embedding needs a multiple of three
        in_channels=4,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        out_channels=8,
        norm_num_groups=4,
    )


def pixart() -> PixArtAlphaPipeline:
    """Its default size is 128x128 latents, where it is told resolution and aspect ratio."""
    return PixArtAlphaPipeline(t5_tokenizer(), t5_encoder(), vae(), pixart_transformer(128), ddim())


def pixart_sigma() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(t5_tokenizer(), t5_encoder(), vae(), pixart_transformer(8), ddim())


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd1": stable_diffusion,
    "sd2": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "flux-guided": flux_guided,
    "pixart": pixart,
    "pixart-sigma": pixart_sigma,
}
FLOWS = ("sd3", "flux", "flux-guided")


def build(family: str, seed: int = 0) -> Any:
    """The pipeline of that family, with weights drawn from a seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = FAMILIES[family]()
        for module in pipe.components.values():
            if isinstance(module, torch.nn.Module):
                module.eval().requires_grad_(False)
        network = getattr(pipe, "unet", None) or pipe.transformer
        for parameter in network.parameters():
            # some layers start at zero, which would hide their inputs
            parameter.add_(torch.randn_like(parameter) * 0.05)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: Any, prompt: str = "a cat", steps: int = 2, seed: int = 0, **options: Any) -> torch.Tensor:
    """What the pipeline makes, 16x16 pixels unless told otherwise."""
    defaults: dict[str, Any] = {"height": 16, "width": 16, "output_type": "pt"}
    if "PixArt" in type(pipe).__name__:
        defaults |= {"use_resolution_binning": False, "clean_caption": False}
    generator = torch.Generator().manual_seed(seed)
    return pipe(prompt, num_inference_steps=steps, generator=generator, **(defaults | options))[0]
