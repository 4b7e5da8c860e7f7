"""LoRA files of every format, small and drawn from a seed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.0.resnets.0.conv1"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    save_file(dict(tensors), path, dict(metadata) if metadata else None)
    return path


def kohya(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def low_rank(
    key: str, out: int, inside: int, rank: int = 2, alpha: float | None = 1.0, kernel: int = 0
) -> dict[str, Tensor]:
    """A layer in kohya's names; with a kernel that of a convolution."""
    size = [kernel] * 2 if kernel else []
    tensors = {
        f"{key}.lora_down.weight": drawn(rank, inside, *size),
        f"{key}.lora_up.weight": drawn(out, rank, *[1 for _ in size], seed=1),
    }
    return tensors | ({} if alpha is None else {f"{key}.alpha": torch.tensor(alpha)})


def weights_of(pipe: Any) -> dict[str, Tensor]:
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}
