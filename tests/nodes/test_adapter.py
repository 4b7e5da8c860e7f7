"""ComfyUI's model and diffusers' pipeline, seen through their adapters: the same numbers from the same weights."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch

from cryptomnesia import load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.demo.comfyui import load_demo_comfyui
from cryptomnesia.denoiser import Condition, Denoiser, NoiseLevel
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.memorization import memorization_score

from .graphs import BENIGN, MEMORIZED
from .harness import Comfy

SHAPE = (4, 16, 16)
CLOSE = 1e-3
TEXTS = [MEMORIZED, BENIGN, ""]
# name -> (sampling and zsnr of ComfyUI's node, changes of diffusers' scheduler)
FORMS: dict[str, tuple[tuple[str, bool], dict[str, Any]]] = {
    "eps": (("eps", False), {}),
    "v": (("v_prediction", False), {"prediction_type": "v_prediction"}),
    "zsnr v": (("v_prediction", True), {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
}


@pytest.fixture(autouse=True)
def _as_in_a_node(comfy: Comfy) -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def parts(comfy: Comfy) -> tuple[Any, Any, Any]:
    with torch.inference_mode():
        return load_demo_comfyui()


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_demo()


@pytest.fixture(params=FORMS)
def pair(request: pytest.FixtureRequest, comfy: Comfy, parts, pipe) -> Iterator[tuple[ComfyDenoiser, Denoiser]]:
    """The same model in both hosts, as noise or velocity prediction."""
    (sampling, zsnr), changes = FORMS[request.param]
    model, clip, _ = parts
    if request.param != "eps":
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

        model = ModelSamplingDiscrete().patch(model, sampling, zsnr)[0]
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, **changes)
    yield ComfyDenoiser(model, clip), to_denoiser(pipe)
    pipe.scheduler = own


def noise(rows: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def times(denoiser: Denoiser) -> NoiseLevel:
    return denoiser.level(torch.tensor([981, 501, 41]))


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To a thousandth of the tensor's own scale where it is large, as x0 at pure noise is."""
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE * max(1.0, expected.abs().max().item()))


def test_predictions_are_the_same(pair: tuple[ComfyDenoiser, Denoiser]):
    found, expected = (d.predict(noise(3), times(d), d.encode(TEXTS)) for d in pair)
    for field in fields(expected):
        same(getattr(found, field.name), getattr(expected, field.name))
    assert (found.noise - expected.noise).abs().max() < CLOSE


def test_levels_are_the_same(pair: tuple[ComfyDenoiser, Denoiser]):
    found, expected = (d.levels.alphas_cumprod for d in pair)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert pair[0].prediction_type == pair[1].prediction_type


def test_scores_are_the_same(pair: tuple[ComfyDenoiser, Denoiser]):
    found, expected = (memorization_score(d, d.encode(TEXTS), noise=noise(2)) for d in pair)
    for name in ("score", "iso", "spectrum"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=CLOSE, atol=1e-4)
    # no guidance has no direction
    torch.testing.assert_close(found.aniso[:2], expected.aniso[:2], rtol=0, atol=CLOSE)
    assert (found.draws, found.forward_rows) == (expected.draws, expected.forward_rows)


def gradient(denoiser: Denoiser) -> torch.Tensor:
    """d(norm of guidance)/d(text) at pure noise."""
    with torch.inference_mode(False), torch.enable_grad():
        own = denoiser.encode(MEMORIZED)
        text = own.tensors["text"].clone().requires_grad_()
        both = Condition.cat([Condition(**{**own.tensors, "text": text}), denoiser.empty])
        pull = denoiser.predict(noise(1).repeat(2, 1, 1, 1), denoiser.levels.pure_noise, both, grad=True).pull
        return torch.autograd.grad((pull[0] - pull[1]).norm(), text)[0]


def test_gradients_are_the_same(pair: tuple[ComfyDenoiser, Denoiser]):
    found, expected = map(gradient, pair)
    largest = expected.abs().max().item()  # small for velocities, which count little at pure noise
    assert largest > 1e-5
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE * largest)


def test_fingerprints_are_the_same(parts, pipe):
    model, clip, _ = parts
    assert ComfyDenoiser(model, clip).fingerprint == to_denoiser(pipe).fingerprint
    assert ComfyDenoiser(model).fingerprint != to_denoiser(pipe).fingerprint  # the text encoder is part of it


def test_conditions_are_the_same(parts, pipe):
    model, clip, _ = parts
    found, expected = (d.encode(TEXTS).tensors["text"] for d in (ComfyDenoiser(model, clip), to_denoiser(pipe)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_private_noise_is_the_same(parts, pipe, count: int):
    found, expected = ComfyDenoiser(*parts[:2]), to_denoiser(pipe)
    assert found.latent_shape(64, 64) == expected.latent_shape() == SHAPE
    assert torch.equal(draw_noise(found, count, 5, SHAPE), draw_noise(expected, count, 5))


def test_a_mitigated_prompt_is_the_same(parts, pipe):
    """The whole of embedding optimisation, on the same noise."""
    from cryptomnesia import Guard
    from cryptomnesia.demo import demo_calibration

    found, expected = (
        Guard(d, demo_calibration()).mitigate(MEMORIZED, "embed", shape=SHAPE)
        for d in (ComfyDenoiser(*parts[:2]), to_denoiser(pipe))
    )
    assert found.mitigation.held and expected.mitigation.held
    assert found.mitigation.p_before == pytest.approx(expected.mitigation.p_before)
    torch.testing.assert_close(
        found.condition.tensors["text"], expected.condition.tensors["text"].cpu(), rtol=0, atol=0.05
    )
