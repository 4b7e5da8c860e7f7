"""Tells running out of memory from other errors, on every device.

Only CUDA raises torch.OutOfMemoryError always. A CPU's allocator, oneDNN and MPS raise plain RuntimeErrors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import OutOfMemory

_SAID = (
    "out of memory",  # CUDA, MPS, ROCm, XPU
    "not enough memory",  # a CPU's allocator: "DefaultCPUAllocator: not enough memory"
    "can't allocate memory",  # the same, elsewhere
    "could not create a primitive",  # oneDNN, without room for its scratch memory
    "could not create a memory object",
    "failed to allocate memory",
    "bad allocation",
    "std::bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that a device, or the machine, had no memory left."""
    if isinstance(error, OutOfMemory | torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(said in message for said in _SAID)


@contextmanager
def memory_needed(message: str) -> Iterator[None]:
    """Turns running out of memory within the block into OutOfMemory with that message; other errors pass."""
    try:
        yield
    except OutOfMemory:
        raise  # it says more precisely what there was no memory for
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(message) from error
