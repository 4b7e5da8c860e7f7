"""Running out of memory is told from other errors on every device."""

import pytest
import torch

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import OutOfMemory
from cryptomnesia.memory import is_out_of_memory, memory_needed
from cryptomnesia.signals.batching import in_batches

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4398046511104 bytes."),
    RuntimeError("could not create a primitive"),
    RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB, other allocations: 1 GB, max allowed: 20 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:30] or "MemoryError")
def test_every_device_is_understood(error: BaseException):
    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemory, match="no room"), memory_needed("no room"):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_pass(error: Exception):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)), memory_needed("no room"):
        raise error


def test_the_allocator_of_this_machine_is_understood():
    with pytest.raises(OutOfMemory, match="no room"), memory_needed("no room"):
        torch.empty(1 << 60)


def test_a_more_precise_message_stays():
    with pytest.raises(OutOfMemory, match="precise"), memory_needed("no room"), memory_needed("precise"):
        raise MemoryError


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:30] or "MemoryError")
def test_batches_are_halved_until_they_fit(error: BaseException):
    asked = []

    def fn(x, t, condition):
        asked.append(len(x))
        if len(x) > 2:
            raise error
        return x

    denoiser = CallableDenoiser(
        fn, torch.linspace(0.999, 0.005, 1000), empty=torch.zeros(1, 2, 3), latent_shape=(1, 2, 2), fingerprint="f"
    )
    x = torch.randn(8, 1, 2, 2)
    level = denoiser.levels.pure_noise
    parts = list(in_batches(lambda rows: denoiser.predict(x[rows], level, denoiser.empty).raw, 8, 8))
    assert asked == [8, 4, 2, 2, 2, 2] and torch.equal(torch.cat([part for _, part in parts]), x)
