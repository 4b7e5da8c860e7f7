"""Families of pipelines, one file each: a small one with random weights, and its network's convention, written down
without looking at the adapter. A file's `FAMILIES` are found by name."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import gaussian

CHANNELS, SIDE = 4, 8  # of latents of 16x16 pixels


@dataclass(frozen=True)
class Family:
    """A family of pipelines.

    Attributes:
        build: Makes the pipeline, small, from configs alone.
        latents: latents(pipe, fed) -> noisy latents (B, 4, 8, 8) of a call, from the network's arguments by name.
        time: time(fed) -> timesteps, or flow times in [0, 1] with 1 pure noise, (B,).
        answer: answer(pipe, fed, out) -> what its network returns to mean `out` (B, 4, 8, 8).
        kind: What `out` is: "epsilon", "v" or "flow" (noise - x0).
        options: What the pipeline's call is given beside prompt, size, steps and generator.
        guided: Options that have it sample with guidance by two branches; None where it cannot.
        network: The pipeline's attribute with the network.
        reference: What prompts are compared with by default.
        sampled: Whether a perfect network's samples are the data; few-step schedulers may not promise that.
        prompts_first: Whether a call of two branches has the prompts' rows first; the last ones are the usual.
        blank: Whether a prompt without words is the empty prompt that others are compared with; not where instructions
            stand before prompts only, or zeros in place of the empty one.
        pixels: The side of its smallest images, whose latents are 8x8.
        resized: Whether the pipeline makes images of the shape that was asked for, but of another size.
        own: own(arguments) -> what of a call's arguments a check is about; by default all.
        attached: False where the pipeline cannot be guarded while it samples.
    """

    build: Callable[[], Any]
    latents: Callable[[Any, dict[str, Any]], Tensor]
    time: Callable[[dict[str, Any]], Tensor]
    answer: Callable[[Any, dict[str, Any], Tensor], Any]
    kind: str = "flow"
    options: dict[str, Any] = field(default_factory=dict)
    guided: dict[str, Any] | None = None
    network: str = "transformer"
    reference: str = "empty branch"
    sampled: bool = True
    prompts_first: bool = False
    blank: bool = True
    pixels: int = 16
    resized: bool = False
    own: Callable[[dict[str, Any]], dict[str, Any]] = dict
    attached: bool = True

    def made(self, seed: int = 0) -> Any:
        """The pipeline, with weights drawn from a seed; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipe = self.build()
            for module in pipe.components.values():
                if isinstance(module, torch.nn.Module):
                    module.eval().requires_grad_(False)
            for parameter in getattr(pipe, self.network).parameters():
                # some layers start at zero, which would hide their inputs
                parameter.add_(torch.randn_like(parameter) * 0.05)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def size(self) -> dict[str, Any]:
        """Height and width of its smallest images."""
        return {"height": self.pixels, "width": self.pixels}

    def perfect(self, mean: Tensor) -> Any:
        """The pipeline with a network that knows data ~ N(mean, gaussian.STD^2), and answers in its convention."""
        pipe = self.made()
        network = getattr(pipe, self.network)
        network.forward = _Perfect(self, pipe, network, mean)
        return pipe

    def call(self, pipe: Any, prompt: Any = "a cat", steps: int = 2, seed: int = 0, **options: Any) -> Any:
        """The pipeline's whole output, the smallest images unless told otherwise."""
        defaults: dict[str, Any] = {**self.size, "output_type": "pt", **self.options}
        generator = torch.Generator().manual_seed(seed)
        given = defaults | options
        images = [name for name in given if name.endswith("image") and isinstance(given[name], Tensor)]
        for name in images:
            given[name] = torch.nn.functional.interpolate(given[name], (given["height"], given["width"]))
        return pipe(prompt=prompt, num_inference_steps=steps, generator=generator, **given)


class _Perfect:
    """Takes the place of a network's forward."""

    def __init__(self, family: Family, pipe: Any, network: Any, mean: Tensor):
        self.family, self.pipe, self.mean = family, pipe, mean
        self.signature = inspect.signature(type(network).forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        fed = arguments(self.signature, (None, *args), kwargs)
        x = self.family.latents(self.pipe, fed)
        time = self.family.time(fed).reshape(-1).expand(len(x)).to(torch.float64)
        out = gaussian.output(x, time, self.family.kind, self.mean).float()
        return self.family.answer(self.pipe, fed, out)


class Fed:
    """Keeps what a network is fed, by name, and what it returns."""

    def __init__(self, network: torch.nn.Module):
        self.calls: list[dict[str, Any]] = []
        self.returned: list[Any] = []
        self._signature = inspect.signature(type(network).forward)
        self._handle = network.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self.calls.append(arguments(self._signature, (module, *args), kwargs))
        self.returned.append(output)

    def __enter__(self) -> "Fed":
        return self

    def __exit__(self, *error: Any) -> None:
        self._handle.remove()


def arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments by name, without self."""
    found = dict(signature.bind(*args, **kwargs).arguments)
    found.pop(next(iter(signature.parameters)))
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two arguments of a network are alike; tensors of one row stand for all rows."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape:
            try:
                one, other = torch.broadcast_tensors(one, other)
            except RuntimeError:
                return False
        return torch.allclose(one.float(), other.float(), rtol=1e-5, atol=1e-5)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {key for key in (one.keys() | other.keys()) if one.get(key) is not None or other.get(key) is not None}
        return all(same(one.get(key), other.get(key)) for key in keys)
    return one == other or (not one and not other)  # None and {} say the same


def changed(network: Any, **options: Any) -> Any:
    """A network of the same class and configuration but for these options."""
    config = {name: value for name, value in network.config.items() if name[0] != "_"}
    return type(network)(**(config | options))


def families() -> dict[str, Family]:
    """All families, by name."""
    found: dict[str, Family] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        found |= importlib.import_module(f"{__name__}.{module}").FAMILIES
    return found
