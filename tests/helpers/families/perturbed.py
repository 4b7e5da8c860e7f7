"""Perturbed-attention guidance: the last row of a call is one that the check is not about."""

from typing import Any

from diffusers import (
    PixArtSigmaPAGPipeline,
    StableDiffusion3PAGPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLPAGPipeline,
)
from torch import Tensor

from ..pipelines import pixart_sigma, stable_diffusion, stable_diffusion_xl
from . import changed, pixart, stable_diffusion_3
from . import stable_diffusion as unets


def own(fed: dict[str, Any]) -> dict[str, Any]:
    """All rows but the last, of one image."""
    rows = len(fed["sample" if "sample" in fed else "hidden_states"])
    return {name: without_last(value, rows) for name, value in fed.items()}


def without_last(value: Any, rows: int) -> Any:
    if isinstance(value, dict):
        return {name: without_last(part, rows) for name, part in value.items()}
    return value[:-1] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value


def pixart_sigma_pag() -> Any:
    pipe = pixart_sigma()
    # the second layer is the one that is perturbed
    pipe.register_modules(transformer=changed(pipe.transformer, num_layers=2))
    return PixArtSigmaPAGPipeline.from_pipe(pipe)


FAMILIES = {
    "sd1-pag": unets.family(lambda: StableDiffusionPAGPipeline.from_pipe(stable_diffusion()), own=own),
    "sdxl-pag": unets.family(
        lambda: StableDiffusionXLPAGPipeline.from_pipe(stable_diffusion_xl()), own=own, blank=False
    ),
    "sd3-pag": stable_diffusion_3.family(
        lambda: StableDiffusion3PAGPipeline.from_pipe(stable_diffusion_3.of_two_layers()), own=own
    ),
    "pixart-sigma-pag": pixart.family(pixart_sigma_pag, own=own),
}
