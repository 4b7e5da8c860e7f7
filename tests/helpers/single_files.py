"""A pipeline as one .safetensors file in the layout of Stability AI's, as Civitai publishes them."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def write(pipe: Any, file: Path, more: dict[str, Tensor] | None = None, without: str | None = None) -> Path:
    """Writes the pipeline's weights to a file, and its configs to a folder of the same name beside it.

    Args:
        pipe: Stable Diffusion 1 or 2.
        file: Ends in .safetensors.
        more: Tensors to put beside its own.
        without: Names that match this are left out.
    """
    weights = {f"model.diffusion_model.{name}": value for name, value in _unet(pipe.unet).items()}
    weights |= {f"first_stage_model.{name}": value for name, value in _vae(pipe.vae).items()}
    for name, value in pipe.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    weights |= more or {}
    kept = {n: v.clone().contiguous() for n, v in weights.items() if without is None or not re.search(without, n)}
    save_file(kept, file)
    configs(pipe, file.with_suffix(""))
    return file


def configs(pipe: Any, folder: Path) -> None:
    """The pipeline's folder without its weights."""
    pipe.save_pretrained(folder)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text())))


def _unet(unet: Any) -> dict[str, Tensor]:
    names = dict(_UNET)
    layers, blocks = unet.config.layers_per_block, len(unet.config.block_out_channels)
    for block in range(blocks):
        for layer in range(layers):
            place = 1 + block * (layers + 1) + layer
            names[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{place}.0"
            names[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{place}.1"
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
        for layer in range(layers + 1):
            place = block * (layers + 1) + layer
            names[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{place}.0"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{place}.1"
        attends = hasattr(unet.up_blocks[block], "attentions")
        place = block * (layers + 1) + layers
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{place}.{2 if attends else 1}.conv"
    found = {}
    for name, value in unet.state_dict().items():
        place = max((known for known in names if name.startswith(known + ".")), key=len)
        rest = name.removeprefix(place + ".")
        if ".resnets." in place + ".":
            layer, kind = rest.split(".")
            rest = f"{_RESNET[layer]}.{kind}"
        found[f"{names[place]}.{rest}"] = value
    return found


def _vae(vae: Any) -> dict[str, Tensor]:
    found = {}
    blocks = len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            for own, theirs in _VAE_ATTENTION.items():
                name = name.replace(f"mid_block.attentions.0.{own}.", f"mid.attn_1.{theirs}.")
            value = value[..., None, None] if value.ndim == 2 else value  # as 1x1 convolutions
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        found[name] = value
    return found


def scaled(pipe: Any) -> tuple[Any, dict[str, Tensor]]:
    """The pipeline with its attention in float8, and the scale of each such weight, as ComfyUI keeps them."""
    scales = {"model.diffusion_model.scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)}
    for name, value in _unet(pipe.unet).items():
        if ".attn2.to_" in name and name.endswith("weight"):
            scale = value.abs().max() / 448
            value.copy_((value / scale).to(torch.float8_e4m3fn).float())
            scales[f"model.diffusion_model.{name.removesuffix('weight')}scale_weight"] = scale.float()
    return pipe, scales
