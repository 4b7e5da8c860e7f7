"""PixArt Alpha and Sigma: a transformer that is fed latents and integer timesteps, and answers with a variance, too."""

from typing import Any

import torch
from torch import Tensor

from ..pipelines import pixart, pixart_sigma
from . import Family


def answer(pipe: Any, fed: dict[str, Any], out: Tensor) -> Any:
    return (torch.cat([out, torch.full_like(out, 7.0)], dim=1),)


OPTIONS = {"guidance_scale": 1.0, "use_resolution_binning": False, "clean_caption": False}


def family(build: Any, **settings: Any) -> Family:
    defaults: dict[str, Any] = {"kind": "epsilon", "options": OPTIONS, "guided": {"guidance_scale": 4.0}}
    return Family(
        build, lambda pipe, fed: fed["hidden_states"], lambda fed: fed["timestep"], answer, **(defaults | settings)
    )


FAMILIES = {"pixart": family(pixart), "pixart-sigma": family(pixart_sigma)}
