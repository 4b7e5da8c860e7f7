"""What makes a ComfyUI model the model it is: weights as loaded from disk, and what was patched onto them."""

from typing import Any

from torch import Tensor

_UNUSED = ("logit_scale", "position_ids")


def weights_and_patches(patcher: Any, prefix: str) -> tuple[list[Tensor], list[str]]:
    """The weights whose names start with the prefix, as they were before any patch, with the LoRAs' own weights; and
    the strength of each patch."""
    weights = [
        entry[0][0]
        for name, entry in patcher.get_key_patches(prefix).items()
        if not name.endswith(_UNUSED) and not _is_idle_projection(name, entry[0][0])
    ]
    described = []
    for name, patches in sorted(patcher.patches.items()):
        for strength, value, strength_model, *_ in patches:
            found = list(_tensors(value))
            weights += found
            shapes = [tuple(tensor.shape) for tensor in found]
            described.append(f"{name} {float(strength):g} {float(strength_model):g} {shapes}")
    return weights, described


def patches_of(model: Any) -> list[str]:
    """Names of what else changes a MODEL's answers: object patches, attention patches, wrappers."""
    found = [f"object {name} {_settings(value)}" for name, value in model.object_patches.items()]
    options = dict(model.model_options)
    transformer = dict(options.pop("transformer_options", {}))
    for place, values in {**options, **transformer}.items():
        found += [f"{place} {name}" for name in _functions(values)]
    return sorted(found)


def _is_idle_projection(name: str, weight: Tensor) -> bool:
    """ComfyUI gives every CLIP a text projection; where the model has none it is the identity."""
    if not name.endswith("text_projection.weight") or weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
        return False
    return bool((weight.float().cpu() == _identity(len(weight))).all())


def _identity(size: int) -> Tensor:
    import torch

    return torch.eye(size)


def _tensors(value: Any) -> list[Tensor]:
    """Of a patch, in whatever form ComfyUI keeps it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    weights = getattr(value, "weights", None)
    return [] if weights is None else _tensors(weights)


def _settings(value: Any) -> str:
    """An object patch by its class and its few numbers, e.g. the shift of a sampling."""
    buffers = getattr(value, "_buffers", {})
    sigmas = buffers.get("sigmas")
    extent = "" if sigmas is None else f"{sigmas.min().item():.6g} {sigmas.max().item():.6g} {sigmas.mean().item():.6g}"
    bases = "/".join(base.__name__ for base in type(value).__mro__[:4])
    return f"{bases} {getattr(value, 'shift', '')} {extent}"


def _functions(value: Any) -> list[str]:
    """Names of the functions and objects in a nested structure of options."""
    if isinstance(value, dict):
        return [f"{key} {name}" for key, part in value.items() for name in _functions(part)]
    if isinstance(value, list | tuple):
        return [name for part in value for name in _functions(part)]
    if value is None or isinstance(value, str | int | float):
        return []
    return [getattr(value, "__qualname__", type(value).__qualname__)]
