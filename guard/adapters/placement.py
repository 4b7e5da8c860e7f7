"""Where a pipeline's weights lie and in what: as stored, and as they are to compute."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..memory import memory_needed
from ..tensors import open_tensors

_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_dtype(model: str) -> str:
    """Returns what most of a network's weights are stored in; float32 where that is another, e.g. eight bits, and for
    the built-in model, whose calibration is made in it."""
    path, counts = Path(model).expanduser(), Counter[str]()
    files = [path] if path.is_file() else [f for n in ("unet", "transformer") for f in path.glob(f"{n}/*.safetensors")]
    plain = [file for file in files if file.name.count(".") == 1]  # a variant is loaded where there is nothing else
    for file in plain or files:
        with open_tensors(file, "model", "get the file again") as weights:
            names = list(weights.keys())
            network = [
                name for name in names if "diffusion_model" in name
            ]  # of the network, in a file of a whole model
            counts.update(weights.get_slice(name).get_dtype() for name in network or names)
    return _STORED.get(counts.most_common(1)[0][0] if counts else "", "float32")


def place(pipe: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Moves a pipeline there; what cannot do with float16, such as parts of T5, stays in float32.

    Raises OutOfMemory where the device has no room for it.
    """
    for part in pipe.components.values():
        if not isinstance(part, torch.nn.Module):
            continue
        kept = set(getattr(part, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else set()
        for name, tensor in chain(part.named_parameters(), part.named_buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    with memory_needed(f"{device} has no memory for this model: use --dtype float16, or --device cpu"):
        pipe.to(device)
