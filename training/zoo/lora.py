"""Low-rank updates of a UNet (Hu et al. 2021, arXiv 2106.09685), in the key layout of kohya's scripts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

RANK = 4
_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


class _Update(torch.nn.Module):
    """Adds up @ down to the weight that it parametrizes, (out, in) or (out, in, height, width) of a convolution."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        self.down = torch.nn.Parameter(torch.randn(rank, *weight.shape[1:]) / rank)
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], rank, *[1] * (weight.ndim - 2)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + product(self.up, self.down)


def product(up: Tensor, down: Tensor) -> Tensor:
    """Returns the update of a weight: up (out, rank, ...) times down (rank, in, ...)."""
    return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


def add(unet: Any, rank: int = RANK, everywhere: bool = False) -> list[torch.nn.Parameter]:
    """Gives every attention projection an update, freezes all else, and returns the parameters to train.

    `everywhere` gives one to every other linear layer and convolution, too.
    """
    unet.requires_grad_(False)
    for _, layer in _layers(unet, everywhere):
        parametrize.register_parametrization(layer, "weight", _Update(layer.weight, rank))
    return [p for name, p in unet.named_parameters() if name.endswith((".up", ".down"))]


def tensors(unet: Any) -> dict[str, Tensor]:
    """Returns the updates as the tensors of a LoRA file, which ComfyUI reads as well."""
    updates = {}
    for name, layer in _layers(unet, True):
        if not parametrize.is_parametrized(layer):
            continue
        parametrizations: Any = layer.parametrizations
        update = parametrizations.weight[0]
        key = _key(name)
        updates[f"{key}.lora_down.weight"] = update.down.detach().half().contiguous()
        updates[f"{key}.lora_up.weight"] = update.up.detach().half().contiguous()
        updates[f"{key}.alpha"] = torch.tensor(float(len(update.down)))
    return updates


def merge(unet: Any, lora: dict[str, Tensor], strength: float = 1.0) -> None:
    """Adds the updates of a LoRA file, times the strength, to the weights. Raises KeyError for those of no layer."""
    left = {name.removesuffix(".lora_up.weight") for name in lora if name.endswith(".lora_up.weight")}
    with torch.no_grad():
        for name, layer in _layers(unet, True):
            key = _key(name)
            if f"{key}.lora_up.weight" in lora:
                up, down = (lora[f"{key}.lora_{part}.weight"].float() for part in ("up", "down"))
                layer.weight += strength * product(up, down)
                left.discard(key)
    if left:
        raise KeyError(f"the network has no layer for {min(left)}, and {len(left) - 1} others of the LoRA")


def _key(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def _layers(unet: Any, everywhere: bool) -> list[tuple[str, Any]]:
    kinds = torch.nn.Linear | torch.nn.Conv2d
    found = [(name, m) for name, m in unet.named_modules() if isinstance(m, kinds)]
    return found if everywhere else [(name, m) for name, m in found if name.endswith(_LAYERS)]
