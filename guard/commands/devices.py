"""Where a model computes and in what: as asked, or what suits the machine and the weights."""

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..printable import printable

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("float32", "float16", "bfloat16")
_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def check_choice(device: str, dtype: str) -> None:
    """Before anything is loaded. Raises InputError for a device that is not there, or an unknown dtype."""
    if dtype not in (AUTO, *DTYPES):
        raise InputError(f"--dtype is one of {', '.join((AUTO, *DTYPES))}, not {printable(dtype)}")
    choose_device(device)


def choose_device(device: str) -> "torch.device":
    """The device of that name; "auto" is the first CUDA device, else MPS, else the CPU.

    Raises:
        InputError: It is not there, or no device has that name.
    """
    import torch

    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *["mps"] * _has_mps()]
    wanted = next((name for name in ("cuda:0", "mps") if name in there), "cpu") if device == AUTO else device
    wanted = "cuda:0" if wanted == "cuda" else wanted
    if wanted not in there:
        raise InputError(f"there is no device {printable(device, 40)} here, only {', '.join(there)}: use --device auto")
    return torch.device(wanted)


def choose_dtype(dtype: str, device: "torch.device", model: str) -> "torch.dtype":
    """The dtype of that name; "auto" is what the weights are stored in, but float32 on a CPU, where half is slow."""
    import torch

    if dtype != AUTO:
        return getattr(torch, dtype)
    return torch.float32 if device.type == "cpu" else getattr(torch, stored_dtype(model))


def stored_dtype(model: str) -> str:
    """What most of a network's weights are stored in; float32 where that is none of DTYPES, e.g. eight bits, and for
    the built-in model, whose calibration is made in it."""
    path, found = Path(model).expanduser(), Counter[str]()
    files = [path] if path.is_file() else [f for n in ("unet", "transformer") for f in path.glob(f"{n}/*.safetensors")]
    plain = [file for file in files if file.name.count(".") == 1]  # a variant is loaded where there is nothing else
    from ..tensors import open_tensors

    for file in plain or files:
        with open_tensors(file, "model", "get the file again") as weights:
            names = list(weights.keys())
            own = [name for name in names if "diffusion_model" in name]  # of the network, in a file of a whole model
            found.update(weights.get_slice(name).get_dtype() for name in own or names)
    return _STORED.get(found.most_common(1)[0][0] if found else "", "float32")


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def place(pipe: Any, device: "torch.device", dtype: "torch.dtype") -> None:
    """Moves a pipeline there; what cannot do with float16, such as parts of T5, stays in float32.

    Raises OutOfMemory where the device has no room for it.
    """
    import torch

    from ..memory import memory_needed

    for part in pipe.components.values():
        if not isinstance(part, torch.nn.Module):
            continue
        kept = set(getattr(part, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else set()
        for name, tensor in chain(part.named_parameters(), part.named_buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    with memory_needed(f"{device} has no memory for this model: use --dtype float16, or --device cpu"):
        pipe.to(device)
