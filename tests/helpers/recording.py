"""Looks over a pipeline's shoulder: what its network is fed, and a perfect network in its place."""

import inspect
from typing import Any

import pytest
import torch

from . import gaussian
from .pipelines import FAMILIES, FLOWS, build, sample

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


def fed_latent(fed: dict[str, torch.Tensor], pipe: Any, width: int = 16) -> torch.Tensor:
    return unpacked(fed["sample"] if "sample" in fed else fed["hidden_states"], pipe, width)


def own_time(fed: dict[str, torch.Tensor], family: str) -> torch.Tensor:
    return fed["timestep"] / 1000 if family == "sd3" else fed["timestep"]


class Perfect(torch.nn.Module):
    """Stands in for a network: knows N(mean, std^2), and answers in the pipeline's own convention."""

    def __init__(self, original: torch.nn.Module, pipe: Any, family: str, mean: torch.Tensor):
        super().__init__()
        self.__dict__.update(original=original, pipe=pipe, family=family, mean=mean)
        self.kind = {"sd2": "v"}.get(family, "flow" if family in FLOWS else "epsilon")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["original"], name)

    def forward(self, x: Any = None, time=None, *, hidden_states=None, timestep=None, **conditions):
        x = hidden_states if x is None else x
        time = timestep if time is None else time
        time = time / 1000 if self.family == "sd3" else time
        out = gaussian.output(unpacked(x, self.pipe), time.reshape(-1), self.kind, self.mean)
        if x.ndim == 3:
            out = self.pipe._pack_latents(out, *out.shape)
        if self.family.startswith("pixart"):
            out = torch.cat([out, torch.ones_like(out)], dim=1)
        return (out.float(),)


def perfect(family: str, mean: torch.Tensor) -> Any:
    pipe = build(family)
    name = "unet" if hasattr(pipe, "unet") else "transformer"
    setattr(pipe, name, Perfect(network_of(pipe), pipe, family, mean))
    return pipe
