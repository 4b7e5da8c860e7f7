"""What a module was found to be when it was last looked at closely, for as long as nothing about it has changed.

A close look compares every layer with a fresh one, which takes longer than a small network's answer. Whether each layer
still holds the very objects that it held then is told in a few microseconds; where what is held may change within
(lists, LoRAs, hooks with a state), it is looked at again.
"""

from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch

from .modules import configuration, is_plain, only_looked_at, peculiarities, settings_of, what_is_global

_CHANGES_WITHIN = list | tuple | FunctionType | MethodType


class _Layer(NamedTuple):
    layer: torch.nn.Module
    cls: type
    held: dict[str, Any]
    children: dict[str, Any]
    settings: dict[str, Any] | None  # where what is held may change within

    def is_as_it_was(self) -> bool:
        layer = self.layer
        try:
            return (
                type(layer) is self.cls
                and vars(layer) == self.held  # by identity first, so that nothing large is compared
                and layer._modules == self.children
                and only_looked_at(layer)
                and (self.settings is None or settings_of(layer) == self.settings)
            )
        except (RuntimeError, ValueError):  # a tensor or an array in place of another
            return False


class _Look(NamedTuple):
    module: torch.nn.Module
    layers: list[_Layer]
    methods: list[tuple[type, Any]]
    surroundings: tuple[Any, ...]
    found: list[str]

    def is_as_it_was(self, module: torch.nn.Module) -> bool:
        return (
            self.module is module
            and self.surroundings == _surroundings(module)
            and all(_methods(cls) == methods for cls, methods in self.methods)
            and all(layer.is_as_it_was() for layer in self.layers)
        )


class LastLook:
    """Remembers `peculiarities` of a few modules, and looks closely again only where something has changed."""

    def __init__(self) -> None:
        self._looks: list[_Look] = []

    def peculiarities(self, module: torch.nn.Module) -> list[str]:
        """Returns what `modules.peculiarities` returns."""
        for look in self._looks:
            if look.module is module:
                if look.is_as_it_was(module):
                    return look.found
                self._looks.remove(look)
                break
        before = _taken(module)
        found = peculiarities(module)
        if before is not None:
            self._looks = [*self._looks[-3:], before._replace(found=found)]
        return found


def _surroundings(module: torch.nn.Module) -> tuple[Any, ...]:
    return what_is_global(), configuration(module)


def _methods(cls: Any) -> tuple[Any, Any]:
    return getattr(cls, "forward", None), cls.__call__


def _taken(module: torch.nn.Module) -> _Look | None:
    """What can be compared later; None where hooks, adapters or other code answer, which may change within."""
    layers: list[_Layer] = []
    classes: dict[type, None] = {}
    for layer in module.modules():
        if not is_plain(layer):
            return None
        held = dict(vars(layer))
        classes[type(layer)] = None
        processor = held.get("processor")
        if processor is not None:
            if settings_of(layer).get("processor") != "exact":
                return None
            classes[type(processor)] = None
        within = any(isinstance(value, _CHANGES_WITHIN) for name, value in held.items() if name[0] != "_")
        settings = settings_of(layer) if within else None
        layers.append(_Layer(layer, type(layer), held, dict(layer._modules), settings))
    methods = [(cls, _methods(cls)) for cls in classes]
    return _Look(module, layers, methods, _surroundings(module), [])
