"""Running out of memory is told from other errors on every device."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from cryptomnesia.cli import run
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import OutOfMemory
from cryptomnesia.memory import is_out_of_memory, memory_needed
from cryptomnesia.signals.batching import in_batches
from cryptomnesia.signals.memorization import memorization_score

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


def short_of_memory(most: int, asked: list[int]) -> CallableDenoiser:
    """A network that has no memory for more rows than that."""

    def fn(x, t, condition):
        asked.append(len(x))
        if len(x) > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4398046511104 bytes.")
        return x * (1 + condition[:, :1, :1, None]) + t.view(-1, 1, 1, 1) / 1000

    options = {"empty": torch.zeros(1, 1, 1), "latent_shape": (1, 4, 4), "fingerprint": "f"}
    return CallableDenoiser(fn, torch.linspace(0.999, 0.005, 1000), **options)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_check_is_halved_too_and_finds_the_same(most: int, shared: bool):
    """Even one prompt's rows; what fitted once is not tried larger again."""
    condition, noise = torch.arange(7.0).view(7, 1, 1), torch.randn(*(() if shared else (7,)), 3, 1, 4, 4)
    asked: list[int] = []
    short = short_of_memory(most, asked)
    found = memorization_score(short, condition, noise=noise, batch_rows=20)
    whole = memorization_score(short_of_memory(99, []), condition, noise=noise, batch_rows=20)
    for name in ("score", "iso", "aniso", "spectrum"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name))
    assert found.forward_rows == whole.forward_rows == sum(rows for rows in asked if rows <= most)
    failed = [rows for rows in asked if rows > most]
    assert failed == sorted(failed, reverse=True) and len(failed) <= 5  # once, at the start
    asked.clear()
    memorization_score(short, condition, noise=noise, batch_rows=20)
    assert max(asked) <= most  # nor by the next check


def test_no_memory_for_a_single_row_is_one_line():
    with pytest.raises(OutOfMemory, match=r"choose a smaller image"):
        memorization_score(short_of_memory(0, []), torch.ones(1, 1, 1))


@pytest.mark.parametrize("command", [["check", "cat", "dog", "fish"], ["calibrate", "--draws", "1", "--alpha", ".05"]])
def test_commands_take_what_memory_there_is(command, tmp_path, monkeypatch, capsys):
    network, asked = UNet2DConditionModel.forward, []

    def forward(self, sample, *args, **kwargs):
        asked.append(len(sample))
        if len(sample) > 8:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)")
        return network(self, sample, *args, **kwargs)

    (tmp_path / "few.txt").write_text("\n".join(f"a thing {i}" for i in range(100)))
    own = ["--calibration", "none"] if command[0] == "check" else ["--prompts", str(tmp_path / "few.txt")]
    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    assert run([*command, "--model", "demo", *own]) in (0, 5), capsys.readouterr().err
    assert max(asked) > 8 and asked[-1] <= 8
