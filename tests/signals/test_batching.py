import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import OutOfMemory
from cryptomnesia.reference import Reference
from cryptomnesia.signals import batching
from cryptomnesia.signals.batching import rows_per_call

from ..helpers import toy

GIB = 2**30


def model(reference: Reference = "empty branch", most: int = 10**6) -> CallableDenoiser:
    def fn(x, t, condition):
        if len(x) > most:
            raise torch.OutOfMemoryError("too many rows")
        return x

    shapes = {"empty": torch.zeros(1, 2, 5), "latent_shape": toy.SHAPE}
    return CallableDenoiser(fn, toy.ABAR, reference=reference, **shapes)


@pytest.mark.parametrize("channels", [4, 16])
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_on_a_cpu_rows_share_a_call_while_their_latents_are_small(channels: int, height: int, width: int):
    rows = rows_per_call(model(), (channels, height, width))
    assert rows == 2 or rows * height * width <= 2**13 < (rows + 1) * height * width


def test_large_images_take_what_the_pipelines_own_step_takes():
    assert rows_per_call(model(), (4, 64, 64)) == rows_per_call(model(), (16, 128, 128)) == 2
    assert rows_per_call(model("empty prompt"), (16, 128, 128)) == 1


def test_what_is_asked_for_is_what_a_call_has_unless_there_is_no_memory():
    denoiser = model(most=5)
    assert rows_per_call(denoiser, toy.SHAPE, 100) == 100
    x = torch.zeros(12, *toy.SHAPE)
    with pytest.raises(OutOfMemory):
        denoiser.predict(x, denoiser.levels.pure_noise, denoiser.empty)
    assert rows_per_call(denoiser, toy.SHAPE, 100) == 6
    assert rows_per_call(denoiser, (*toy.SHAPE[:2], 9), 100) == 100  # another size


@pytest.mark.parametrize(
    ("free", "shape", "rows"),
    [
        (70 * GIB, (4, 64, 64), 8),
        (70 * GIB, (4, 128, 128), 2),
        (1 * GIB, (4, 64, 64), 2),
        (3 * GIB, (4, 64, 64), 6),
        (0, (4, 16, 16), 2),
    ],
)
def test_on_a_gpu_free_memory_counts_too(free: int, shape: tuple[int, ...], rows: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - free // 4, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * GIB + free // 4)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * GIB)
    denoiser = model()
    denoiser.device = torch.device("cuda")
    assert rows_per_call(denoiser, shape) == rows
    assert batching.FREE_SHARE * free >= (rows - 2) * batching.POSITION_BYTES * shape[1] * shape[2] or rows == 2
