"""Looks over a pipeline's shoulder: what its network is fed."""

import inspect
from typing import Any

import pytest
import torch

from .pipelines import FAMILIES, FLOWS, sample

CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
every_family = pytest.mark.parametrize("family", FAMILIES)


def network_of(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def times(family: str) -> torch.Tensor:
    return torch.tensor([1.0, 0.6, 0.1]) if family in FLOWS else torch.tensor([981, 500, 41])


def unpacked(latent: torch.Tensor, pipe: Any, width: int = 16) -> torch.Tensor:
    return pipe._unpack_latents(latent, 16, width, pipe.vae_scale_factor) if latent.ndim == 3 else latent


class Recorder:
    """Keeps what the network is fed, by parameter name, and what it answers."""

    def __init__(self, network: torch.nn.Module):
        self.fed: list[dict[str, Any]] = []
        self.answers: list[torch.Tensor] = []
        self.signature = inspect.signature(network.forward)
        self.handle = network.register_forward_hook(self.keep, with_kwargs=True)

    def keep(self, module, args, kwargs, answer):
        given = dict(self.signature.bind(*args, **kwargs).arguments)
        given |= given.pop("added_cond_kwargs", None) or {}
        self.fed.append({name: value for name, value in given.items() if isinstance(value, torch.Tensor)})
        self.answers.append(answer[0])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.handle.remove()


def record(pipe: Any, **options: Any) -> Recorder:
    """What the pipeline itself feeds its network in a real call."""
    if "Flux" not in type(pipe).__name__:
        options |= {"negative_prompt": ""}
    with Recorder(network_of(pipe)) as recorder:
        sample(pipe, "a cat", **options)
    return recorder


def own_time(fed: dict[str, torch.Tensor], family: str) -> torch.Tensor:
    return fed["timestep"] / 1000 if family == "sd3" else fed["timestep"]
