"""Low-rank updates of a UNet's attention (Hu et al. 2021, arXiv 2106.09685), in the key layout of kohya's scripts."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

RANK = 4
_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


class _Update(torch.nn.Module):
    """Adds up @ down to the weight that it parametrizes."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.down = torch.nn.Parameter(torch.randn(RANK, weight.shape[1]) / RANK)
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add(unet: Any) -> list[torch.nn.Parameter]:
    """Gives every attention projection an update, freezes all else, and returns the parameters to train."""
    unet.requires_grad_(False)
    for _, layer in _projections(unet):
        parametrize.register_parametrization(layer, "weight", _Update(layer.weight))
    return [p for name, p in unet.named_parameters() if name.endswith((".up", ".down"))]


def tensors(unet: Any) -> dict[str, Tensor]:
    """Returns the updates as the tensors of a LoRA file, which ComfyUI reads as well."""
    updates = {}
    for name, layer in _projections(unet):
        parametrizations: Any = layer.parametrizations
        update = parametrizations.weight[0]
        key = "lora_unet_" + name.replace(".", "_")
        updates[f"{key}.lora_down.weight"] = update.down.detach().half().contiguous()
        updates[f"{key}.lora_up.weight"] = update.up.detach().half().contiguous()
        updates[f"{key}.alpha"] = torch.tensor(float(RANK))
    return updates


def merge(unet: Any, lora: dict[str, Tensor], strength: float = 1.0) -> None:
    """Adds the updates of a LoRA file, times the strength, to the weights."""
    with torch.no_grad():
        for name, layer in _projections(unet):
            key = "lora_unet_" + name.replace(".", "_")
            update = lora[f"{key}.lora_up.weight"].float() @ lora[f"{key}.lora_down.weight"].float()
            layer.weight += strength * update


def _projections(unet: Any) -> list[tuple[str, torch.nn.Linear]]:
    return [(name, m) for name, m in unet.named_modules() if name.endswith(_LAYERS) and isinstance(m, torch.nn.Linear)]
