"""Spectral signatures against a slow reference that shares no code with them: one row at a time, numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cryptomnesia.denoiser import CallableDenoiser, Condition
from cryptomnesia.errors import InputError, NonFiniteError, OutOfMemory
from cryptomnesia.signals.spectral import cosine_distance, length, ring_masks, rows_per_image, signature

from ..helpers.gaussian import ABAR

SHAPE = (2, 12, 10)


def network(seed: int = 0, kind: str = "epsilon") -> CallableDenoiser:
    """A fixed nonlinear network: a convolution, bent, that depends on time and text."""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(2, 2, 3, 3, generator=generator) / 3

    def fn(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        shift = (t / (1 if kind == "flow" else 1000)).view(-1, 1, 1, 1) + condition.mean((1, 2)).view(-1, 1, 1, 1)
        return torch.tanh(torch.nn.functional.conv2d(x, kernel, padding=1)) * (1 + shift)

    empty = torch.full((1, 2, 3), 0.25)
    return CallableDenoiser(fn, None if kind == "flow" else ABAR, kind, empty=empty, latent_shape=SHAPE)  # type: ignore[arg-type]


def latents(count: int = 2) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(9))


def reference(denoiser: CallableDenoiser, z: Tensor, indices: list[int], compat: bool) -> np.ndarray:
    """One image (C, H, W) by the formula, one row of the network at a time."""
    height, width = SHAPE[1:]
    row, column = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    radius = np.hypot(row, column) / np.sqrt(2)
    rings = [(radius >= k / 8) & (radius < (k + 1) / 8) for k in range(8)]
    if not compat:
        rings[7] = rings[7] | (radius > 1 - 1e-9)
    generator = torch.Generator().manual_seed(123)
    energy = np.zeros((3, len(indices), 8, 8))
    for step, index in enumerate(indices):
        t = 981 - 20 * index
        alpha, sigma = float(ABAR[t].sqrt()), float((1 - ABAR[t]).sqrt())
        for _ in range(6):
            eta = torch.randn(1, *SHAPE, generator=generator)[0].double().numpy()
            plane = np.fft.fftshift(np.fft.fft2(eta), axes=(-2, -1))
            for i, scale in enumerate((1, 1.25, 1.5)):
                for k in range(8):
                    confined = np.fft.ifft2(np.fft.ifftshift(plane * rings[k], axes=(-2, -1))).real
                    confined *= scale * eta.std(ddof=1) / confined.std(ddof=1)
                    noisy = torch.from_numpy(alpha * z.double().numpy() + sigma * confined).float()[None]
                    error = denoiser.fn(noisy, torch.tensor([t]), denoiser.empty.tensors["text"])[0].numpy() - confined
                    error = np.abs(np.fft.fftshift(np.fft.fft2(error), axes=(-2, -1))) ** 2
                    energy[i, step, k] += [(error * ring).sum() for ring in rings]
    return (energy / energy.sum(-1, keepdims=True)).ravel()


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize(("plan", "indices"), [("5step", [10, 19, 29, 39, 49]), ("1step", [25])])
def test_signature_is_the_formula(plan, indices, compat):
    denoiser, z = network(), latents()
    found = signature(denoiser, z, plan=plan, author_compat=compat).numpy()
    expected = np.stack([reference(denoiser, one, indices, compat) for one in z])
    assert found.shape == (2, 3 * len(indices) * 64) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max(), rtol=1e-4)


def test_numbers_do_not_hang_on_the_batching():
    z = latents(3)
    whole = signature(network(), z, plan="1step")
    for rows in (1, 7, 100, 1000):
        torch.testing.assert_close(signature(network(), z, plan="1step", batch_rows=rows), whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(signature(network(), z[1:2], plan="1step"), whole[1:2], rtol=1e-4, atol=1e-6)


def test_running_out_of_memory_halves_the_calls():
    denoiser, inner, asked = network(), network().fn, []

    def fn(x, t, condition):
        asked.append(len(x))
        if len(x) > 20:
            raise torch.OutOfMemoryError("no memory")
        return inner(x, t, condition)

    denoiser.fn = fn
    found = signature(denoiser, latents(1), plan="1step", batch_rows=128)
    torch.testing.assert_close(found, signature(network(), latents(1), plan="1step"), rtol=1e-4, atol=1e-6)
    assert asked[:4] == [72, 36, 18, 18]

    def hopeless(x, t, condition):
        raise torch.OutOfMemoryError("no memory")

    denoiser.fn = hopeless
    with pytest.raises(OutOfMemory):
        signature(denoiser, latents(1), plan="1step")


def test_rows_sum_up_to_one_and_progress_reaches_the_end():
    done = []
    found = signature(network(), latents(2), progress=lambda *step: done.append(step))
    assert found.shape == (2, length("5step")) == (2, 960)
    torch.testing.assert_close(found.view(2, -1, 8).sum(-1), torch.ones(2, 120))
    assert done[-1] == (1440, 1440) and 2 * rows_per_image("5step") == 1440


def test_global_random_state_is_untouched():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    signature(network(), latents(1), plan="1step")
    assert torch.equal(torch.get_rng_state(), before)


def test_seed_and_condition_count():
    z = latents(2)
    plain = signature(network(), z, plan="1step")
    assert not torch.allclose(plain, signature(network(), z, plan="1step", seed=5))
    text = torch.stack([torch.zeros(2, 3), torch.full((2, 3), 0.25)])
    per_image = signature(network(), z, plan="1step", condition=Condition(text=text))
    torch.testing.assert_close(per_image[1], plain[1])
    assert not torch.allclose(per_image[0], plain[0])


def test_corners_are_all_that_compat_leaves_out():
    every, theirs = ring_masks(12, 10, True), ring_masks(12, 10, False)
    assert (every.sum(0) == 1).all()
    missing = torch.fft.fftshift(every - theirs, dim=(-2, -1))
    assert missing.sum() == 4
    assert missing[7, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [1] * 4


@pytest.mark.parametrize("kind", ["v", "flow"])
def test_other_outputs_are_turned_into_noise(kind):
    found = signature(network(kind=kind), latents(1), plan="1step")
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("z", "options", "words"),
    [
        (torch.zeros(2, 12, 10), {}, "(B, C, H, W)"),
        (torch.zeros(0, 2, 12, 10), {}, "at least one"),
        (torch.zeros(1, 4, 12, 10), {}, "2 channels, not 4"),
        (torch.full((1, 2, 12, 10), float("nan")), {}, "NaN or infinity"),
        (torch.zeros(1, 2, 2, 2), {}, "no frequency in 7 of 8 rings"),
        (torch.zeros(1, 2, 12, 10), {"plan": "full"}, "unknown plan 'full'"),
        (torch.zeros(1, 2, 12, 10), {"condition": torch.zeros(3, 2, 3)}, "3 conditions do not fit 1"),
    ],
)
def test_bad_input_costs_one_line(z, options, words):
    with pytest.raises(InputError) as error:
        signature(network(), z, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_nan_of_the_model_is_named():
    denoiser = network()
    denoiser.fn = lambda x, t, c: x * float("nan")
    with pytest.raises(NonFiniteError):
        signature(denoiser, latents(1), plan="1step")


def test_cosine_distance():
    a = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    found = cosine_distance(a, torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 2.0]] * 2, dtype=torch.float64))
