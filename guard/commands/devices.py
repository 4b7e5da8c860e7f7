"""Where a model computes and in what: as asked, or what suits the machine and the weights."""

from typing import TYPE_CHECKING

from ..errors import InputError
from ..printable import printable

if TYPE_CHECKING:
    import torch

AUTO = "auto"
DTYPES = ("float32", "float16", "bfloat16")


def check_choice(device: str, dtype: str) -> None:
    """Raises InputError for a device that is not there, or an unknown dtype; called before anything is loaded."""
    if dtype not in (AUTO, *DTYPES):
        raise InputError(f"--dtype is one of {', '.join((AUTO, *DTYPES))}, not {printable(dtype)}")
    choose_device(device)


def choose_device(device: str) -> "torch.device":
    """Returns the device of that name; "auto" is the first CUDA device, else MPS, else the CPU.

    Raises:
        InputError: It is not there, or no device has that name.
    """
    import torch

    available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *["mps"] * _has_mps()]
    wanted = next((name for name in ("cuda:0", "mps") if name in available), "cpu") if device == AUTO else device
    wanted = "cuda:0" if wanted == "cuda" else wanted
    if wanted not in available:
        raise InputError(
            f"there is no device {printable(device, 40)} here, only {', '.join(available)}: use --device auto"
        )
    return torch.device(wanted)


def choose_dtype(dtype: str, device: "torch.device", model: str) -> "torch.dtype":
    """Returns the dtype of that name; "auto" is the weights' own, but float32 on a CPU, where half is slow."""
    import torch

    from ..adapters.placement import stored_dtype

    if dtype != AUTO:
        return getattr(torch, dtype)
    return torch.float32 if device.type == "cpu" else getattr(torch, stored_dtype(model))


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()
