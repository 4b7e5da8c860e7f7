"""The values of a module's weights wherever they lie: on a device, in the hooks that bring them there, or in files.

Sequential offloading leaves tensors without values in the module between its calls, offloading groups to disk leaves
tensors with no meaning; where the values are is known to the hooks of accelerate and diffusers that fetch them.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..identity import inner_tensors
from ..tensors import open_tensors

Reader = Callable[[], Tensor]


def state_of(module: torch.nn.Module) -> dict[str, Reader]:
    """Returns what a module's state holds, by name, each to be read when it is called for: one weight at a time fits.

    Readers raise InputError where the values are out of reach.
    """
    elsewhere, files = dict(_in_hooks(module)), dict(_in_files(module))
    found: dict[str, Reader] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            found[name] = elsewhere.get(name) or files.get(id(tensor)) or partial(here, tensor)
    return found


def first_weight(module: Any) -> Tensor | None:
    """Returns a weight that lies where its module computes, in the type that it computes in.

    None where that takes a closer look: where hooks of diffusers move or cast weights, or some are kept in float32.
    """
    if not isinstance(module, torch.nn.Module) or getattr(module, "_keep_in_fp32_modules", None):
        return None
    layers = [module]
    for layer in layers:  # grows as it goes
        if "_diffusers_hook" in vars(layer):
            return None
        layers.extend(child for child in layer._modules.values() if child is not None)
    first = next(module.parameters(), None)
    return first if first is not None and first.is_floating_point() else None


def hooks_of(layer: torch.nn.Module) -> Iterator[Any]:
    """Yields the hooks that accelerate and diffusers have put around a layer's forward."""
    own = vars(layer)  # asking a module for what it lacks takes long
    moved, registry = own.get("_hf_hook"), own.get("_diffusers_hook")
    yield from getattr(moved, "hooks", [moved]) if moved is not None else ()
    yield from registry.hooks.values() if registry is not None else ()


def here(tensor: Tensor) -> Tensor:
    """Returns a tensor that lies in its module, detached. Raises InputError where it has no values."""
    if any(part.is_meta for part in inner_tensors(tensor)):
        raise InputError(
            "the weights cannot be digested: a part has no values, neither in the model nor in what offloads it: load "
            "the model anew, and use pipe.enable_model_cpu_offload() where memory is short"
        )
    return tensor.detach()


def _in_hooks(module: torch.nn.Module) -> Iterator[tuple[str, Reader]]:
    """What accelerate keeps while there is nothing in the module."""
    for path, layer in module.named_modules():
        for hook in hooks_of(layer):
            kept = getattr(hook, "weights_map", None)
            if kept is None or not getattr(hook, "offload", False):
                continue
            tensors = layer.state_dict() if hook.place_submodules else {**layer._parameters, **layer._buffers}
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    yield f"{path}.{name}" if path else name, partial(kept.__getitem__, name)


def _in_files(module: torch.nn.Module) -> Iterator[tuple[int, Reader]]:
    """What diffusers has written into files, by the tensors that stand for it."""
    for layer in module.modules():
        for hook in hooks_of(layer):
            group = getattr(hook, "group", None)
            if getattr(group, "_is_offloaded_to_disk", False):
                for tensor, key in group.tensor_to_key.items():  # type: ignore[union-attr]
                    yield id(tensor), partial(_read, group.safetensors_file_path, key)  # type: ignore[union-attr]


def _read(path: str, key: str) -> Tensor:
    with open_tensors(Path(path), "file of offloaded weights", "offload the model again") as file:
        return file.get_tensor(key)
