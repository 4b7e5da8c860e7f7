"""Tiny ComfyUI models of every family, built in memory with seeded weights; also for the test pack's nodes.

comfy is imported inside functions, so that tests can name the kinds before it is there.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .networks import (
    AURA,
    CHROMA,
    FLUX,
    FLUX2,
    HIDREAM,
    HUNYUAN,
    LAYERS,
    LUMINA,
    PIXART,
    POOLED,
    QWEN,
    SD3,
    SDXL,
    UNET,
    WAN,
    WIDTH,
    Z_IMAGE,
)

CLIP = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
VAE = {"double_z": True, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1, 1]}
VAE |= {"num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        config, model, prediction: A class in comfy.supported_models, one in comfy.model_base, and a ModelType.
        network: The network's configuration.
        sampling: Settings of the sampling beside those of the class.
        channels, factor, size: Of latents: their channels, pixels of an image for each, and how many a side has.
        text, pooled, layers: What texts become: their width, whether there is a vector beside, and layers of another
            encoder.
        guidance: What a conditioning says that the network is told.
        clip: Whether there is a small text encoder.
    """

    config: str
    network: dict[str, Any]
    prediction: str
    model: str = "BaseModel"
    sampling: tuple[tuple[str, Any], ...] = ()
    channels: int = 4
    factor: int = 8
    size: int = 8
    text: int = WIDTH
    pooled: bool = False
    layers: int = 0
    guidance: float | None = None
    clip: bool = False


KINDS = {
    "eps": Kind("SD15", UNET, "EPS", clip=True),
    "v": Kind("SD15", UNET, "V_PREDICTION", clip=True),
    "zsnr": Kind("SD15", UNET, "V_PREDICTION", sampling=(("zsnr", True),), clip=True),
    "edm": Kind(
        "SD15", UNET, "EDM", sampling=(("sigma_data", 0.5), ("sigma_min", 0.002), ("sigma_max", 80.0)), clip=True
    ),
    "sdxl": Kind("SDXL", UNET | SDXL, "EPS", "SDXL", text=2 * WIDTH, pooled=True, clip=True),
    "sd3": Kind("SD3", SD3, "FLOW", "SD3", channels=16, pooled=True),
    "flux": Kind("Flux", FLUX | {"guidance_embed": True}, "FLUX", "Flux", channels=16, pooled=True, guidance=3.5),
    "chroma": Kind("Chroma", CHROMA, "FLUX", "Chroma", channels=16),
    "qwen": Kind("QwenImage", QWEN, "FLUX", "QwenImage", channels=16),
    "wan": Kind("WAN21_T2V", WAN, "FLOW", "WAN21", channels=16, sampling=(("shift", 8.0),)),
    "flux2": Kind("Flux2", FLUX2 | {"guidance_embed": True}, "FLUX", "Flux2", channels=128, factor=16, guidance=4.0),
    "klein": Kind("Flux2", FLUX2 | {"guidance_embed": False}, "FLUX", "Flux2", channels=128, factor=16),
    "lumina": Kind("Lumina2", LUMINA, "FLOW", "Lumina2", channels=16),
    "z-image": Kind("ZImage", Z_IMAGE, "FLOW", "Lumina2", channels=16),
    "hunyuan": Kind("HunyuanImage21", HUNYUAN, "FLOW", "HunyuanImage21", channels=64, factor=32),
    "hunyuan-distilled": Kind(
        "HunyuanImage21",
        HUNYUAN | {"guidance_embed": True, "meanflow": True},
        "FLOW",
        "HunyuanImage21",
        channels=64,
        factor=32,
        guidance=3.5,
    ),
    "hidream": Kind("HiDream", HIDREAM, "FLOW", "HiDream", channels=16, pooled=True, layers=LAYERS),
    "aura": Kind("AuraFlow", AURA, "FLOW", "AuraFlow"),
    "pixart": Kind("PixArtAlpha", PIXART, "EPS", "PixArt", size=48),  # smaller ones ComfyUI gives no places
    "schnell": Kind("FluxSchnell", FLUX | {"guidance_embed": False}, "FLOW", "Flux", channels=16, pooled=True),
}


def build(kind: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """ComfyUI's MODEL, CLIP (None where only conditionings are to be had) and VAE."""
    return model(kind, seed), clip(kind, seed) if KINDS[kind].clip else None, vae(kind, seed)


def model(kind: str, seed: int = 0) -> Any:
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_management as devices
    import comfy.model_patcher
    import comfy.supported_models

    made = KINDS[kind]
    config = getattr(comfy.supported_models, made.config)({**made.network, "dtype": torch.float32})
    config.unet_config |= made.network  # over what the family forces
    config.sampling_settings = {**config.sampling_settings, **dict(made.sampling)}  # the class keeps its own
    if made.prediction == "EDM":
        config.latent_format = comfy.latent_formats.SDXL_Playground_2_5()
    prediction = getattr(comfy.model_base.ModelType, made.prediction)
    whole = getattr(comfy.model_base, made.model)(config, prediction, device=torch.device("cpu"))
    fill(whole.diffusion_model, seed)
    return comfy.model_patcher.CoreModelPatcher(whole, devices.get_torch_device(), devices.unet_offload_device())


def clip(kind: str, seed: int = 0) -> Any:
    """A real text encoder with ComfyUI's own tokenizer, three layers of width 32."""
    import comfy.sd
    import comfy.supported_models

    target = getattr(comfy.supported_models, KINDS[kind].config)({}).clip_target()
    encoder = comfy.sd.CLIP(target, model_options={"clip_l_model_config": CLIP, "clip_g_model_config": CLIP})
    fill(encoder.cond_stage_model, seed)
    return encoder


def vae(kind: str, seed: int = 0) -> Any:
    """Eight pixels a latent, as most of these families."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    channels = KINDS[kind].channels
    config = {"params": {"ddconfig": {**VAE, "z_channels": channels}, "embed_dim": channels}}
    network = AutoencoderKL(**config["params"])
    fill(network, seed)
    made = comfy.sd.VAE(sd=network.state_dict(), config=config, dtype=torch.float32)
    made.latent_channels = channels
    return made


def control_net(patcher: Any) -> Any:
    """A CONTROL_NET for a model with a UNet; its last layers are not zero, as those of one that was trained."""
    import comfy.controlnet
    import comfy.model_management as devices
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    config = {name: value for name, value in patcher.model.model_config.unet_config.items() if name != "out_channels"}
    network = ControlNet(
        **config | {"hint_channels": 3, "dtype": torch.float32}, operations=comfy.ops.disable_weight_init
    )
    fill(network, 1)
    return comfy.controlnet.ControlNet(network, load_device=devices.get_torch_device())


def fill(module: torch.nn.Module, seed: int) -> None:
    """ComfyUI's layers start as uninitialised memory."""
    generator = torch.Generator().manual_seed(seed)
    inner = [(name, value) for name, value in module.named_buffers() if name.endswith("pos_embed")]
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *inner]:
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1:
                value.copy_(noise * value[0].numel() ** -0.5)
            elif value.ndim == 1:
                value.copy_(noise * 0.05 + (0.0 if name.endswith("bias") else 1.0))


def conditioning(kind: str, seed: int = 0, rows: int = 1, tokens: int = 8) -> list[list[Any]]:
    """A ComfyUI CONDITIONING as a text encoder of this family would give."""
    made = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    extra: dict[str, Any] = {}
    text = torch.randn(rows, tokens, made.text, generator=generator)
    if made.pooled:
        extra["pooled_output"] = torch.randn(rows, POOLED, generator=generator)
    if made.layers:
        extra["conditioning_llama3"] = torch.randn(rows, made.layers, tokens + 1, made.text, generator=generator)
    if made.guidance is not None:
        extra["guidance"] = made.guidance
    return [[text, extra]]


def latent(kind: str, rows: int = 1, size: int | None = None) -> dict[str, torch.Tensor]:
    """An empty LATENT."""
    side = size or KINDS[kind].size
    return {"samples": torch.zeros(rows, KINDS[kind].channels, side, side)}
