"""A1111's and Forge's models as denoisers give what the diffusers pipeline of the same weights gives."""

from typing import Any

import pytest
import torch

from cryptomnesia import Guard, load_demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.a1111 import CompVisDenoiser
from cryptomnesia.adapters.forge import ForgeDenoiser
from cryptomnesia.demo import demo_calibration
from cryptomnesia.errors import InputError, NotApplicable
from cryptomnesia.signals.memorization import memorization_score

from ..helpers.pipelines import stable_diffusion, stable_diffusion_2
from .models import CompVisModel, ForgeModel, install_backend

MEMORIZED, ORDINARY = "the restless beacon of grimsby", "monkey face on blue"
HOSTS = {"a1111": (CompVisModel, CompVisDenoiser), "forge": (ForgeModel, ForgeDenoiser)}


@pytest.fixture(params=sorted(HOSTS))
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes of a pipeline the denoiser of a web UI that holds the same networks."""
    install_backend(monkeypatch)
    model, denoiser = HOSTS[request.param]

    def made(pipe: Any, **options: Any) -> Any:
        return denoiser(model(pipe), to_denoiser(pipe).latent_shape(), **options)

    return made


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_demo()


@pytest.mark.parametrize("make", [stable_diffusion, stable_diffusion_2])
def test_same_weights_same_identity_and_scores(host: Any, make: Any):
    torch.manual_seed(0)
    pipe = make()
    theirs, ours = to_denoiser(pipe), host(pipe)
    assert ours.fingerprint == theirs.fingerprint and ours.family == theirs.family
    assert ours.prediction_type == theirs.prediction_type and ours.latent_shape() == theirs.latent_shape()
    texts = ["a cat", "some dog by the sea"]
    expected, got = (memorization_score(model, model.encode(texts), draws=2) for model in (theirs, ours))
    torch.testing.assert_close(got.iso, expected.iso, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.score, expected.score, rtol=1e-4, atol=1e-6)


def test_the_built_in_models_calibration_serves(host: Any, demo: Any):
    theirs = Guard(demo, demo_calibration())
    ours = Guard(host(demo), demo_calibration())
    for prompt, verdict in ((MEMORIZED, "memorized"), (ORDINARY, "clear")):
        expected, got = theirs.check(prompt), ours.check(prompt)
        assert got.verdict == expected.verdict == verdict
        assert got.score == pytest.approx(expected.score, rel=1e-4)


def test_long_prompts_are_read_in_chunks_and_alone(host: Any, demo: Any):
    denoiser = host(demo)
    long = " ".join(["beacon"] * 100)
    both = denoiser.encode([ORDINARY, long])
    assert both.tensors["tokens"].tolist() == [77, 154] and not denoiser.truncated(long)
    alone = [memorization_score(denoiser, denoiser.encode(text)).score for text in (ORDINARY, long)]
    torch.testing.assert_close(memorization_score(denoiser, both).score, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_what_changes_the_answers_changes_the_identity(host: Any, demo: Any):
    plain = host(demo).fingerprint
    assert host(demo, settings=["clip layer -2"]).fingerprint != plain
    weight = demo.unet.conv_in.weight
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        assert host(demo).fingerprint != plain
    finally:
        with torch.no_grad():
            weight.div_(1.5)
    assert host(demo).fingerprint == plain


def test_levels_are_those_of_the_moment(demo: Any):
    """The web UI's option for a schedule that ends in pure noise changes them just before sampling."""
    model = CompVisModel(demo)
    plain = CompVisDenoiser(model, (4, 16, 16)).fingerprint
    roots = model.alphas_cumprod.sqrt()
    model.alphas_cumprod = (roots - roots[-1]).mul(roots[0] / (roots[0] - roots[-1])).square().clamp_min(4.8e-8)
    assert CompVisDenoiser(model, (4, 16, 16)).fingerprint != plain


def test_forge_settles_before_weights_are_read(demo: Any, monkeypatch: pytest.MonkeyPatch):
    prepared: list[Any] = []
    install_backend(monkeypatch, prepared)
    model = ForgeModel(demo)
    plain = ForgeDenoiser(model, (4, 16, 16)).fingerprint
    assert prepared == [(model.forge_objects.unet, (1, 4, 16, 16))]
    model.forge_objects.unet.lora_patches = {("a.safetensors", 1.0, 1.0, False): []}  # merged: seen in the weights
    assert ForgeDenoiser(model, (4, 16, 16)).fingerprint == plain
    found = []
    for strength in (0.5, 1.0):
        model.forge_objects.unet.lora_patches = {("a.safetensors", strength, 1.0, True): []}
        found.append(ForgeDenoiser(model, (4, 16, 16)).fingerprint)
    model.forge_objects.unet.lora_patches = {}
    model.forge_objects.unet.model_options = {"transformer_options": {"patches": {"attn1_patch": [len]}}}
    found.append(ForgeDenoiser(model, (4, 16, 16)).fingerprint)
    assert len({plain, *found}) == 4
    model.forge_objects.unet.model_options = {"sampler_post_cfg_function": [len], "transformer_options": {}}
    assert ForgeDenoiser(model, (4, 16, 16)).fingerprint == plain


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("parameterization", "x0", "x0"),
        ("alphas_cumprod", None, "no discrete noise levels"),
        ("conditioning_key", "hybrid", "inpainting"),
        ("forward", lambda *_: None, "ControlNet"),
    ],
)
def test_a1111_models_that_say_nothing_at_pure_noise(demo: Any, monkeypatch: Any, name: str, value: Any, words: str):
    model = CompVisModel(demo)
    place: Any = {"conditioning_key": model.model, "forward": demo.unet}.get(name, model)
    monkeypatch.setitem(vars(place), name, value)
    denoiser = CompVisDenoiser(model, (4, 16, 16))
    with pytest.raises(NotApplicable, match=words):
        denoiser.require_guidance()
        _ = denoiser.prediction_type


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("is_sd1", False, "Stable Diffusion 1.x"),
        ("use_distilled_cfg_scale", True, "Stable Diffusion 1.x"),
        ("is_inpaint", True, "inpainting"),
    ],
)
def test_forge_models_that_say_nothing_at_pure_noise(demo: Any, name: str, value: Any, words: str):
    model: Any = ForgeModel(demo)
    setattr(model, name, value)
    with pytest.raises(NotApplicable, match=words):
        ForgeDenoiser(model, (4, 16, 16)).require_guidance()


def test_conditions_that_are_none(host: Any, demo: Any):
    denoiser = host(demo)
    for condition in ("text", torch.zeros(3), {"vector": torch.zeros(1, 3)}, torch.full((77, 4), torch.nan)):
        with pytest.raises(InputError):
            denoiser.read(condition)
    with pytest.raises(InputError, match="multiple of 8"):
        denoiser.latent_shape(100, 128)
    assert denoiser.latent_shape(64, 128) == (4, 8, 16) and denoiser.pixels((4, 8, 16)) == (64, 128)
