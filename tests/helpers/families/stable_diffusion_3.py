"""Stable Diffusion 3 and 3.5: a transformer that is fed latents and 1000 s."""

from typing import Any

from torch import Tensor

from ..pipelines import stable_diffusion_3
from . import Family, changed


def family(build: Any, **settings: Any) -> Family:
    defaults: dict[str, Any] = {"options": {"guidance_scale": 1.0}, "guided": {"guidance_scale": 4.0}}
    return Family(
        build,
        lambda pipe, fed: fed["hidden_states"],
        lambda fed: fed["timestep"] / 1000,
        answer,
        **(defaults | settings),
    )


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (out,)


def of_two_layers(**network: Any) -> Any:
    pipe = stable_diffusion_3()
    pipe.register_modules(transformer=changed(pipe.transformer, num_layers=2, **network))
    return pipe


def stable_diffusion_3_5() -> Any:
    """With normalized queries and keys, and two attentions in a layer, as 3.5 medium has."""
    return of_two_layers(dual_attention_layers=(0,), qk_norm="rms_norm")


FAMILIES = {"sd3": family(stable_diffusion_3), "sd3.5": family(stable_diffusion_3_5)}
