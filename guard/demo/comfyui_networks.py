"""The networks of the built-in model in ComfyUI's own classes, filled from diffusers' layout."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

Tensors = dict[str, Any]
TEXT_PREFIX = "clip_l.transformer."
SPECIALS = {"start": "bos", "end": "eos", "pad": "pad"}
# for previews: least squares from latents to means of 4x4 pixels in [-1, 1], on the training images
PREVIEW = [[0.256, -0.379, 0.339], [-0.122, 0.579, 0.137], [0.373, 0.303, -0.049], [0.042, -0.088, -0.279]]
PREVIEW_BIAS = [0.314, 0.297, 0.115]


class Multiplier(float):
    """A channel multiplier such as 1.5: ComfyUI takes its products for widths, so they are whole."""

    def __mul__(self, other: float) -> int:
        return round(float(self) * other)

    __rmul__ = __mul__


def unet(tensors: Tensors, configs: Mapping[str, Any], disable_dynamic: bool) -> Any:
    """Returns the UNet as a ModelPatcher; `configs` has diffusers' configs of unet, vae and scheduler."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.utils

    config = model_config(configs)
    choose_precision(config, tensors)
    config.custom_operations = grouped(config, configs["unet"]["norm_num_groups"])
    device, offload = management.get_torch_device(), management.unet_offload_device()
    model = config.get_model({}, "").to(offload)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=offload)
    names = comfy.utils.unet_to_diffusers(config.unet_config)  # of some layers too that this UNet lacks
    renamed = {new: tensors[old] for old, new in names.items() if old in tensors}
    model.load_model_weights(renamed, "", assign=patcher.is_dynamic())
    return patcher


def choose_precision(config: Any, tensors: Tensors) -> None:
    """Sets the types that weights are held and computed in, as ComfyUI's own loaders do."""
    import comfy.model_management as management
    import comfy.utils

    kinds = config.supported_inference_dtypes
    parameters, stored = comfy.utils.calculate_parameters(tensors), comfy.utils.weight_dtype(tensors)
    held = management.unet_dtype(model_params=parameters, supported_dtypes=kinds, weight_dtype=stored)
    device = management.get_torch_device()
    config.set_inference_dtype(held, management.unet_manual_cast(held, device, kinds), device=device)


def model_config(configs: Mapping[str, Any]) -> Any:
    """Returns ComfyUI's Stable Diffusion 1.5, but with this model's widths, heads, latents and noise schedule."""
    import torch
    from comfy.supported_models import SD15

    noise = configs["scheduler"]

    class Config(SD15):
        unet_extra_config: ClassVar = {"num_heads": configs["unet"]["attention_head_dim"], "num_head_channels": -1}
        # ComfyUI's "linear" is diffusers' "scaled_linear"
        sampling_settings: ClassVar = {
            "beta_schedule": "linear",
            "linear_start": noise["beta_start"],
            "linear_end": noise["beta_end"],
            "timesteps": noise["num_train_timesteps"],
        }
        latent_format = latent_format(configs["vae"])
        # costs nothing at this size, and the calibration was made so
        supported_inference_dtypes: ClassVar = [torch.float32]

    return Config(unet_config(configs["unet"]))


def latent_format(config: Mapping[str, Any]) -> type:
    """Returns the format of latents at a quarter of the image's side, where ComfyUI takes an eighth for granted."""
    from comfy.latent_formats import LatentFormat

    class Latents(LatentFormat):
        scale_factor = config["scaling_factor"]
        latent_channels = config["latent_channels"]
        spacial_downscale_ratio = downscale(config)
        latent_rgb_factors = PREVIEW
        latent_rgb_factors_bias = PREVIEW_BIAS

    return Latents


def downscale(config: Mapping[str, Any]) -> int:
    """Returns the pixels per latent, along one side."""
    return 2 ** (len(config["block_out_channels"]) - 1)


def unet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of ComfyUI's UNetModel for diffusers' config."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    down = ["CrossAttn" in block for block in config["down_block_types"]]
    up = ["CrossAttn" in block for block in reversed(config["up_block_types"])]  # widest image first
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [Multiplier(width / widths[0]) for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [int(attends) for attends in down for _ in range(layers)],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [int(attends) for attends in up for _ in range(layers + 1)],
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": config["use_linear_projection"],
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "adm_in_channels": None,
        "legacy": False,
    }


def grouped(config: Any, groups: int) -> type:
    """Returns the operations that ComfyUI would choose, whose GroupNorm has that many groups instead of 32."""
    import comfy.ops

    chosen: Any = comfy.ops.pick_operations(config.unet_config["dtype"], config.manual_cast_dtype)

    class GroupNorm(chosen.GroupNorm):
        def __init__(self, num_groups: int, *args: Any, **kwargs: Any):
            super().__init__(groups, *args, **kwargs)

    return type("Operations", (chosen,), {"GroupNorm": GroupNorm})


def text_encoder(
    tensors: Tensors, config: Mapping[str, Any], tokenizer: Path, embeddings: Any, disable_dynamic: bool
) -> Any:
    """Returns text encoder and tokenizer as a CLIP, with the one section "l" of Stable Diffusion 1.5."""
    import comfy.sd
    import comfy.utils

    named = text_tensors(tensors, config["hidden_size"])
    return comfy.sd.CLIP(
        clip_target(config, tokenizer),
        embedding_directory=embeddings,
        parameters=comfy.utils.calculate_parameters(named),
        state_dict=named,
        disable_dynamic=disable_dynamic,
    )


def clip_target(config: Mapping[str, Any], tokenizer: Path) -> Any:
    """Returns what a CLIP makes its text encoder and tokenizer with."""
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
    from comfy.supported_models_base import ClipTarget

    length = config["max_position_embeddings"]
    tokens = partial(
        SDTokenizer, tokenizer_path=str(tokenizer), max_length=length, embedding_size=config["hidden_size"]
    )
    encoder = partial(
        SDClipModel,
        model_class=text_model,
        textmodel_json_config=dict(config),
        max_length=length,
        special_tokens={place: config[f"{name}_token_id"] for place, name in SPECIALS.items()},
        return_projected_pooled=False,
    )
    return ClipTarget(partial(SD1Tokenizer, tokenizer=tokens), partial(SD1ClipModel, clip_model=encoder))


def text_tensors(tensors: Tensors, width: int) -> Tensors:
    """Returns the text encoder's tensors under ComfyUI's names."""
    import torch

    # only older transformers write the prefix
    named = {f"{TEXT_PREFIX}text_model.{name.removeprefix('text_model.')}": t for name, t in tensors.items()}
    # ComfyUI's class has a projection; Stable Diffusion's text encoder has none
    return {**named, f"{TEXT_PREFIX}text_projection.weight": torch.eye(width, dtype=torch.float16)}


def text_model(config: Mapping[str, Any], dtype: Any, device: Any, operations: Any) -> Any:
    """Returns ComfyUI's CLIPTextModel with the vocabulary of `config`; its own takes that of CLIP for granted."""
    import comfy.clip_model

    model = comfy.clip_model.CLIPTextModel(config, dtype, device, operations)
    size = config["vocab_size"], config["hidden_size"]
    model.set_input_embeddings(operations.Embedding(*size, dtype=dtype, device=device))
    return model


def vae(tensors: Tensors, config: Mapping[str, Any]) -> Any:
    """Returns the autoencoder as a VAE."""
    import comfy.model_management as management
    import comfy.sd
    import torch

    made = comfy.sd.VAE(
        sd=vae_tensors(tensors, len(config["block_out_channels"])),
        config={"params": vae_config(config)},
        dtype=management.vae_dtype(management.vae_device(), [torch.float32]),
    )
    made.downscale_ratio = made.upscale_ratio = downscale(config)
    made.latent_channels = config["latent_channels"]
    for module in made.first_stage_model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = config["norm_num_groups"]  # ComfyUI makes 32, whatever the width
    return made


def vae_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of ComfyUI's AutoencoderKL for diffusers' config."""
    widths = config["block_out_channels"]
    shape = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"ddconfig": shape, "embed_dim": config["latent_channels"]}


def vae_tensors(tensors: Tensors, levels: int) -> Tensors:
    """Returns the autoencoder's tensors under ComfyUI's names."""
    from comfy.diffusers_convert import convert_vae_state_dict

    # the conversion numbers the decoder's levels down from 3
    numbered = {f"decoder.up.{4 - levels + level}.": f"decoder.up.{level}." for level in range(levels)}
    renamed = {}
    for name, tensor in convert_vae_state_dict(tensors).items():
        old = next((prefix for prefix in numbered if name.startswith(prefix)), "")
        renamed[numbered.get(old, "") + name.removeprefix(old)] = tensor
    return renamed
