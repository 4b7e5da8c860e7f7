"""ControlNets and T2I-Adapters beside the networks of other families. Here they are given strength 0, so that what the
network answers is what it answers about the prompt; what a check is about is the rest of its arguments."""

import inspect
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPAGPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPAGPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
    T2IAdapter,
)

from ..pipelines import stable_diffusion, stable_diffusion_xl
from . import Family, changed, perturbed
from . import stable_diffusion as unets
from . import stable_diffusion_3 as transformers

IMAGE = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
OF_IMAGES = {
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
    "block_controlnet_hidden_states",
}


def own(fed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fed.items() if name not in OF_IMAGES}


def of(pipe: Any, cls: Any, **parts: Any) -> Any:
    """A pipeline of the parts of another one, and more."""
    return cls(**{name: part for name, part in pipe.components.items() if part is not None}, **parts, **unchecked(cls))


def unchecked(cls: Any) -> dict[str, Any]:
    """What is said in place of a safety checker, where there could be one."""
    name = cls.__name__
    if "XL" in name or "3" in name:
        return {}
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def controlled(pipe: Any, cls: Any) -> Any:
    # whose second layer halves an image once
    return of(pipe, cls, controlnet=ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16)))


def controlled_by_any() -> Any:
    pipe = stable_diffusion_xl()
    known = inspect.signature(ControlNetUnionModel.__init__).parameters
    config = {name: value for name, value in pipe.unet.config.items() if name in known}
    small = {
        "num_trans_channel": 8,
        "num_proj_channel": 8,
        "num_trans_head": 2,
        "conditioning_embedding_out_channels": (8, 16),
    }
    return of(pipe, StableDiffusionXLControlNetUnionPipeline, controlnet=ControlNetUnionModel(**(config | small)))


def adapted(pipe: Any, cls: Any) -> Any:
    """Its network has attention above, where the adapter's values are added before the halving."""
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    pipe.register_modules(unet=changed(pipe.unet, down_block_types=down, up_block_types=up))
    return of(pipe, cls, adapter=T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2))


def controlled_3() -> Any:
    pipe = transformers.of_two_layers()  # a ControlNet is a copy of all but the last layer
    other = transformers.of_two_layers().transformer  # whose configuration is changed by it
    network = SD3ControlNetModel.from_transformer(other, 1, num_extra_conditioning_channels=0)
    return of(pipe, StableDiffusion3ControlNetPipeline, controlnet=network)


def family(
    build: Any, kind: Any = unets, image: str = "image", strength: str = "controlnet", **settings: Any
) -> Family:
    off = {image: IMAGE, f"{strength}_conditioning_scale": 0.0}
    options = {"guidance_scale": 1.0, **off, **settings.pop("options", {})}
    return kind.family(build, options=options, **({"own": own, "attached": False} | settings))


FAMILIES = {
    "sd1-controlnet": family(lambda: controlled(stable_diffusion(), StableDiffusionControlNetPipeline)),
    "sdxl-controlnet": family(
        lambda: controlled(stable_diffusion_xl(), StableDiffusionXLControlNetPipeline), blank=False
    ),
    "sdxl-controlnet-union": family(
        controlled_by_any,
        image="control_image",
        options={"control_mode": 0},
        blank=False,
    ),
    "sd3-controlnet": family(controlled_3, transformers, "control_image"),
    "sd1-adapter": family(lambda: adapted(stable_diffusion(), StableDiffusionAdapterPipeline), strength="adapter"),
    "sdxl-adapter": family(
        lambda: adapted(stable_diffusion_xl(), StableDiffusionXLAdapterPipeline), strength="adapter", blank=False
    ),
    "sd1-controlnet-pag": family(
        lambda: controlled(stable_diffusion(), StableDiffusionControlNetPAGPipeline),
        own=lambda fed: own(perturbed.own(fed)),
    ),
    "sdxl-controlnet-pag": family(
        lambda: controlled(stable_diffusion_xl(), StableDiffusionXLControlNetPAGPipeline),
        own=lambda fed: own(perturbed.own(fed)),
        blank=False,
    ),
}
