"""The shapes of real models, from their public configurations, and how much memory their networks take.

Networks are made of configurations alone, on the meta device, where nothing is computed; nothing is downloaded. The
configurations are those of the models' own repositories (config.json of unet or transformer, and of vae).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from .live_memory import peak_bytes

Arguments = Callable[[int, int, torch.dtype, torch.device], dict[str, Any]]
META = torch.device("meta")


@dataclass(frozen=True)
class TrueShape:
    """A model as it really is.

    Attributes:
        network: The class of its network, and `config` its configuration.
        pixels: Height and width of its images.
        vae: The configuration of its autoencoder, beside what all of these share.
        tokens: How many tokens a prompt has.
        arguments: arguments(rows, tokens, dtype, device) -> what a call of so many rows hands the network.
        branches: Rows per image in a step of its pipeline: 2 with guidance by two branches.
        half: The 16-bit type that it is used in.
    """

    network: Any
    config: dict[str, Any]
    pixels: int
    vae: dict[str, Any]
    tokens: int
    arguments: Arguments
    branches: int = 2
    half: torch.dtype = torch.float16
    _peaks: dict[Any, int] = field(default_factory=dict, repr=False)

    @property
    def latent(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents of an image."""
        return self.vae["latent_channels"], self.pixels // 8, self.pixels // 8

    def made(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network, with random weights, or none on the meta device."""
        return _made(self.network, self.config, device, dtype)

    @cached_property
    def _on_meta(self) -> tuple[Any, Any]:
        return self.made(META, torch.float32), autoencoder(self.vae, META, torch.float32)

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(weight.numel() for weight in self._on_meta[0].parameters())

    def peak(self, rows: int, tokens: int | None = None, dtype: torch.dtype | None = None) -> int:
        """Returns the most bytes above the weights that one call of so many rows takes, inputs and output included."""
        tokens, dtype = tokens or self.tokens, dtype or self.half
        if (key := (rows, tokens, dtype)) not in self._peaks:
            network = torch.nn.Module.to(self._on_meta[0], dtype)
            self._peaks[key] = peak_bytes(lambda: network(**self.arguments(rows, tokens, dtype, META)))
        return self._peaks[key]

    def autoencoder_peak(self, way: str, images: int, dtype: torch.dtype | None = None) -> int:
        """Returns the most bytes above the weights that the autoencoder takes to "encode" or "decode" so many images.

        One that overflows in float16, and says so, computes in float32.
        """
        dtype = dtype or self.half
        dtype = torch.float32 if dtype == torch.float16 and self.vae.get("force_upcast") else dtype
        if (key := (way, images, dtype)) not in self._peaks:
            vae = torch.nn.Module.to(self._on_meta[1], dtype)
            shape = (3, self.pixels, self.pixels) if way == "encode" else self.latent
            self._peaks[key] = peak_bytes(
                lambda: getattr(vae, way)(torch.empty(images, *shape, dtype=dtype, device=META))
            )
        return self._peaks[key]


def autoencoder(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    """An autoencoder of the shape that all of these models have, with random weights."""
    shared: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    }
    return _made(AutoencoderKL, shared | config, device, dtype)


def _made(cls: Any, config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return cls(**config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def _unet(width: int, size: int, **more: int) -> Arguments:
    """Of a U-Net with embeddings of that width; `more` are widths of what it is told beside the prompt."""

    def arguments(rows: int, tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        def empty(*shape: int) -> torch.Tensor:
            return torch.zeros(rows, *shape, dtype=dtype, device=device)

        told = {name: empty(length) for name, length in more.items()}
        return {
            "sample": empty(4, size, size),
            "timestep": torch.full((rows,), 981, device=device),
            "encoder_hidden_states": empty(tokens, width),
            **({"added_cond_kwargs": told} if told else {}),
        }

    return arguments


def _sd3(rows: int, tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    return {
        "hidden_states": torch.zeros(rows, 16, 128, 128, dtype=dtype, device=device),
        "encoder_hidden_states": torch.zeros(rows, tokens, 4096, dtype=dtype, device=device),
        "pooled_projections": torch.zeros(rows, 2048, dtype=dtype, device=device),
        "timestep": torch.full((rows,), 1000.0, device=device),
    }


def _flux(rows: int, tokens: int, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    return {
        "hidden_states": torch.zeros(rows, 4096, 64, dtype=dtype, device=device),  # packed by 2 x 2
        "encoder_hidden_states": torch.zeros(rows, tokens, 4096, dtype=dtype, device=device),
        "pooled_projections": torch.zeros(rows, 768, dtype=dtype, device=device),
        "timestep": torch.ones(rows, dtype=dtype, device=device),
        "img_ids": torch.zeros(4096, 3, dtype=dtype, device=device),
        "txt_ids": torch.zeros(tokens, 3, dtype=dtype, device=device),
        "guidance": torch.full((rows,), 3.5, device=device),
    }


SHAPES: dict[str, TrueShape] = {
    "SD 1.5, 512 px": TrueShape(
        UNet2DConditionModel,
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        512,
        {"latent_channels": 4, "scaling_factor": 0.18215, "sample_size": 512, "force_upcast": False},
        77,
        _unet(768, 64),
    ),
    "SDXL, 1024 px": TrueShape(
        UNet2DConditionModel,
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        1024,
        {"latent_channels": 4, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
        77,
        _unet(2048, 128, text_embeds=1280, time_ids=6),
    ),
    "SD 3 medium, 1024 px": TrueShape(
        SD3Transformer2DModel,
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
        1024,
        {
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "sample_size": 1024,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        333,  # 77 of CLIP, 256 of T5
        _sd3,
    ),
    "Flux.1 dev, 1024 px": TrueShape(
        FluxTransformer2DModel,
        {
            "patch_size": 1,
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
            "axes_dims_rope": (16, 56, 56),
        },
        1024,
        {
            "latent_channels": 16,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "sample_size": 1024,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        512,
        _flux,
        branches=1,  # it is told its guidance scale
        half=torch.bfloat16,
    ),
}
