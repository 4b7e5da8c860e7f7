"""Tiny ComfyUI models of every family, built in memory with seeded weights; also for the test pack's nodes.

comfy is imported inside functions, so that tests can name the kinds before it is there.
"""

from dataclasses import dataclass
from typing import Any

import torch

WIDTH = 32  # of text embeddings; the smallest that ComfyUI's group norms allow in a network
POOLED = 32
SIZE_IDS = 6 * 256  # what SDXL is told about sizes
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [1, 1],
    "channel_mult": (1, 2),
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "context_dim": WIDTH,
    "legacy": False,
    "use_temporal_attention": False,
}
SDXL = {
    "context_dim": 2 * WIDTH,
    "adm_in_channels": POOLED + SIZE_IDS,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
    "num_heads": -1,
    "num_head_channels": 16,
}
SD3 = {
    "in_channels": 16,
    "input_size": None,
    "patch_size": 2,
    "depth": 1,  # 64 wide
    "num_blocks": 2,
    "pos_embed_max_size": 16,
    "num_patches": 256,
    "pos_embed_scaling_factor": None,
    "adm_in_channels": POOLED,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 64}},
}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": POOLED,
    "context_in_dim": WIDTH,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
    "theta": 10_000,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
CHROMA = {
    **{name: FLUX[name] for name in ("context_in_dim", "hidden_size", "mlp_ratio", "num_heads", "depth", "patch_size")},
    **{name: FLUX[name] for name in ("depth_single_blocks", "axes_dim", "theta", "qkv_bias", "txt_ids_dims")},
    "image_model": "chroma",
    "in_channels": 64,  # counted after the cut into patches
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 32,
    "hidden_dim": 32,
    "n_layers": 1,
    "vec_in_dim": None,
}
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,  # here, too
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": POOLED,
    "axes_dims_rope": (4, 6, 6),
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "text_len": 8,
    "in_dim": 16,
    "dim": 32,
    "ffn_dim": 32,
    "freq_dim": 16,
    "text_dim": WIDTH,
    "out_dim": 16,
    "num_heads": 2,
    "num_layers": 1,
}
CLIP = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
VAE = {"double_z": True, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1, 1, 1]}
VAE |= {"num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}


@dataclass(frozen=True)
class Kind:
    """config: a class in comfy.supported_models; model: one in comfy.model_base; prediction: a ModelType."""

    config: str
    network: dict[str, Any]
    prediction: str
    model: str = "BaseModel"
    sampling: tuple[tuple[str, Any], ...] = ()
    channels: int = 4
    text: int = WIDTH
    pooled: bool = False
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
    config.sampling_settings |= dict(made.sampling)
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
    """Eight pixels a latent, as all these families."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    channels = KINDS[kind].channels
    config = {"params": {"ddconfig": {**VAE, "z_channels": channels}, "embed_dim": channels}}
    network = AutoencoderKL(**config["params"])
    fill(network, seed)
    made = comfy.sd.VAE(sd=network.state_dict(), config=config, dtype=torch.float32)
    made.latent_channels = channels
    return made


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
    if made.guidance is not None:
        extra["guidance"] = made.guidance
    return [[text, extra]]


def latent(kind: str, rows: int = 1, size: int = 8) -> dict[str, torch.Tensor]:
    """An empty LATENT."""
    return {"samples": torch.zeros(rows, KINDS[kind].channels, size, size)}
