"""Flux: packed latents, time s, guidance as an input or not."""

from typing import Any

from torch import Tensor

from ..pipelines import flux, flux_guided
from . import Family


def latents(pipe: Any, fed: dict[str, Any]) -> Tensor:
    return pipe._unpack_latents(fed["hidden_states"], 16, 16, pipe.vae_scale_factor)


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (pipe._pack_latents(out, *out.shape),)


TWICE = {"negative_prompt": "", "true_cfg_scale": 4.0}
FAMILIES = {
    name: Family(build, latents, lambda fed: fed["timestep"], answer, guided=TWICE, reference="empty prompt")
    for name, build in (("flux", flux), ("flux-guided", flux_guided))
}
