"""A pipeline with a LoRA at some strength, for as long as a block lasts; and then, bit for bit, without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..printable import printable
from .matching import Match, matched
from .reading import LoraFile


class Applier:
    """Adds a LoRA to the weights of a denoiser's pipeline, and takes it off again.

    One way for all formats: a weight is exchanged for its sum with the dense update, computed in float32. The base's
    own tensors are set aside and put back as they are, so that nothing is rounded. Memory: that of the changed weights.

    Args:
        denoiser: The denoiser of a diffusers pipeline.
        lora: The LoRA.

    Attributes:
        lora: As given.
        matches: What each update changes.

    Raises:
        InputError: The LoRA was made for another base, or the weights are quantised or out of reach.
    """

    def __init__(self, denoiser: Any, lora: LoraFile):
        self.denoiser, self.lora = denoiser, lora
        self.matches = matched(denoiser, lora)
        self._aside: list[tuple[torch.nn.Parameter, Tensor]] = []
        for match in self.matches:
            _require_plain(match)

    @contextmanager
    def at(self, strength: float) -> Iterator[Any]:
        """The denoiser with the LoRA at a strength; 0 is the base itself, and leaves every tensor alone.

        Strength scales the difference that the LoRA makes, of DoRA, too. Whatever happens within the block, errors
        and Ctrl-C included, the weights are as before afterwards.
        """
        if self._aside:
            raise InputError("the LoRA is on already: leave the block that put it on first")
        aside = self._aside
        try:
            if strength:
                for match in self.matches:
                    self._change(match, strength, aside)
            yield self.denoiser
        finally:
            _put_back(aside)
            aside.clear()

    @contextmanager
    def lifted(self) -> Iterator[Any]:
        """Within `at`: the base once more, for as long as a block lasts; two calls of one network cost no copies."""
        with_lora = [(parameter, parameter.detach()) for parameter, _ in self._aside]
        try:
            _put_back(self._aside)
            yield self.denoiser
        finally:
            _put_back(with_lora)

    def _change(self, match: Match, strength: float, aside: list[tuple[torch.nn.Parameter, Tensor]]) -> None:
        layer: Any = match.layer
        update, weight = match.update, layer.weight
        # what is made here must serve gradients later, unless the model was loaded without
        with torch.inference_mode(weight.is_inference()), torch.no_grad():
            changed = []
            if update.shape:
                sum_ = weight.detach().float() + strength * update.delta(weight=weight)
                changed.append((weight, sum_.to(weight.dtype)))
            if update.bias is not None:
                sum_ = layer.bias.detach().float() + strength * update.bias.to(layer.bias.device).float()
                changed.append((layer.bias, sum_.to(layer.bias.dtype)))
            for parameter, value in changed:
                if not torch.isfinite(value).all():
                    raise InputError(
                        f"{self.lora.path} at strength {strength:g} makes {printable(match.name, 80)} larger than "
                        f"{value.dtype} holds: take a smaller strength, or --dtype float32"
                    )
                aside.append((parameter, parameter.detach()))  # first: what is not noted cannot be put back
                parameter.set_(value)


def _put_back(aside: list[tuple[torch.nn.Parameter, Tensor]]) -> None:
    """Puts all tensors back, also where Ctrl-C comes meanwhile."""
    left, stopped = list(aside), None
    while left:
        try:
            while left:
                _set(*left[-1])
                left.pop()
        except KeyboardInterrupt as stop:
            stopped = stop
    if stopped is not None:
        raise stopped


def _set(parameter: Any, value: Tensor) -> None:
    with torch.inference_mode(parameter.is_inference()), torch.no_grad():
        if parameter.device == value.device:
            parameter.set_(value)  # the very memory that it had; counted as an edit, which others look at
        else:  # its host has moved the network meanwhile
            parameter.data = value.to(parameter.device)


def _require_plain(match: Match) -> None:
    layer: Any = match.layer
    if match.part and layer.weight.is_inference():  # whose changes nobody can see, and what it encoded is kept
        raise InputError("the text encoder was loaded in inference mode, and cannot be changed: load it outside of it")
    for parameter in (layer.weight, layer.bias if match.update.bias is not None else None):
        if parameter is None:
            continue
        if parameter.is_meta:
            raise InputError("the model's weights are offloaded, out of reach of a LoRA: load it without offloading")
        plain = parameter.is_floating_point() and parameter.element_size() > 1
        if not plain or hasattr(parameter, "__tensor_flatten__"):
            raise InputError(
                f"the model's weights are quantised ({printable(str(parameter.dtype), 30)}), and a LoRA cannot be "
                "added to them: load it in float32, float16 or bfloat16"
            )
