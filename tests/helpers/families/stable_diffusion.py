"""Stable Diffusion 1.x, 2.x, XL, and what is distilled of them: a UNet that is fed latents and integer timesteps."""

from collections.abc import Callable
from typing import Any

from diffusers import LatentConsistencyModelPipeline, LCMScheduler, TCDScheduler
from torch import Tensor

from ..pipelines import (
    clip_encoder,
    clip_tokenizer,
    ddim,
    stable_diffusion,
    stable_diffusion_2,
    stable_diffusion_xl,
    unet,
    vae,
)
from . import Family

NONE: Any = None  # of what annotations want


def family(build: Callable[[], Any], **settings: Any) -> Family:
    """A pipeline around a UNet, without guidance unless told otherwise."""
    defaults: dict[str, Any] = {
        "kind": "epsilon",
        "network": "unet",
        "options": {"guidance_scale": 1.0},
        "guided": {"guidance_scale": 4.0},
    }
    return Family(build, lambda pipe, fed: fed["sample"], lambda fed: fed["timestep"], answer, **(defaults | settings))


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


def latent_consistency() -> LatentConsistencyModelPipeline:
    """It is told its guidance."""
    scheduler: Any = LCMScheduler(beta_start=0.00085, beta_end=0.012)
    network = unet(time_cond_proj_dim=8)
    return LatentConsistencyModelPipeline(
        vae(), clip_encoder(), clip_tokenizer(), network, scheduler, NONE, NONE, NONE, False
    )


def few_steps(scheduler: Any) -> Any:
    """A Stable Diffusion with the scheduler of LCM-LoRA, or the like, in place of its own."""
    return stable_diffusion(scheduler.from_config(ddim().config))


def turbo() -> Any:
    """SDXL Turbo and Lightning: nothing in the pipeline but its scheduler's spacing tells what it is."""
    pipe = stable_diffusion_xl()
    pipe.scheduler = ddim(timestep_spacing="trailing")
    return pipe


DISTILLED: dict[str, Any] = {
    "reference": "empty prompt",
    "sampled": False,
}  # the schedulers jump to the end and add noise
FAMILIES = {
    "sd1": family(stable_diffusion),
    "sd2": family(stable_diffusion_2, kind="v"),
    "sdxl": family(stable_diffusion_xl, blank=False),
    "lcm": family(latent_consistency, options={}, guided=None, **DISTILLED),
    "lcm-lora": family(lambda: few_steps(LCMScheduler), **DISTILLED),
    "tcd": family(lambda: few_steps(TCDScheduler), **DISTILLED),
}
