"""What ComfyUI's own classes of models tell about a network: its family, the texts that it reads, its guidance."""

from typing import Any

import torch

# by ComfyUI's class of model; what diffusers knows as well has the same name
_FAMILIES = {
    "BaseModel": "stable-diffusion",
    "SDXL": "stable-diffusion-xl",
    "SD3": "stable-diffusion-3",
    "Flux2": "flux-2",
    "QwenImage": "qwen-image",
    "HunyuanImage21": "hunyuan-image",
    "Lumina2": "lumina-2",
}
_WIDTHS = ("context_dim", "context_in_dim", "cap_feat_dim", "cond_seq_dim")
_READERS = ("txt_in", "text_embedding.0", "y_embedder.y_proj.fc1")  # where the configuration leaves it to the network
_TOLD = ("Chroma",)  # beside those whose configuration says so
_ALWAYS_DISTILLED = ("Flux",)  # schnell, which is sampled without guidance, and dev


def family_of(base: Any) -> str:
    """Returns the family of ComfyUI's BaseModel."""
    name = type(base).__name__
    if base.model_config.unet_config.get("z_image_modulation"):
        return "z-image"
    return _FAMILIES.get(name, name.lower())


def text_width(base: Any) -> int | None:
    """Returns the width of the texts that a network reads; None where that cannot be told."""
    config = base.model_config.unet_config
    embedder = config.get("context_embedder_config") or {}
    channels = config.get("caption_channels")  # of HiDream a list, T5 first
    found = [config.get(name) for name in _WIDTHS]
    found += [embedder.get("params", {}).get("in_features"), channels[0] if isinstance(channels, list) else channels]
    found += [_features(base.diffusion_model, path) for path in _READERS]
    return next((width for width in found if isinstance(width, int) and width > 0), None)


def _features(network: Any, path: str) -> Any:
    for name in path.split("."):
        network = getattr(network, name, None)
    return getattr(network, "in_features", None)


def is_told_guidance(base: Any) -> bool:
    """Returns whether the guidance scale is an input of the network."""
    return bool(base.model_config.unet_config.get("guidance_embed")) or type(base).__name__ in _TOLD


def is_distilled(base: Any) -> bool:
    """Returns whether nobody trained the network without a prompt, as far as its class tells."""
    return bool(base.model_config.unet_config.get("guidance_embed")) or type(base).__name__ in _ALWAYS_DISTILLED


def own_guidance(base: Any) -> float | None:
    """Returns what ComfyUI tells the network as its guidance where a conditioning says nothing; None for nothing."""
    if not is_told_guidance(base):
        return None
    noise = torch.zeros(1, base.latent_format.latent_channels, 2, 2)
    told = base.extra_conds(noise=noise, device=noise.device, pooled_output=None).get("guidance")
    return None if told is None else float(told.cond.flatten()[0])
