"""Pipelines around the networks of other families: what perturbs attention, what is told of an image, few steps."""

import re
import warnings
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusion3PAGPipeline

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.network_calls import watched
from cryptomnesia.adapters.sampling import TextToImage
from cryptomnesia.calibration import calibrate
from cryptomnesia.errors import InputError, MemorizationBlocked

from ..helpers.families import Family, families
from ..helpers.families import stable_diffusion as unets
from ..helpers.families.stable_diffusion_3 import stable_diffusion_3_5
from ..helpers.guarded import BENIGN, above

FAMILIES = families()
SHAPE = (4, 8, 8)
OF_IMAGES = [name for name in FAMILIES if re.search("^s.*(controlnet|adapter)", name)]
PERTURBED = [name for name in FAMILIES if name.endswith("-pag") and FAMILIES[name].attached]


def scores(denoiser: Any, score: float) -> Any:
    return above(calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=SHAPE), score)


def processors(network: Any) -> dict[str, type]:
    return {name: type(processor) for name, processor in network.attn_processors.items()}


def original(pipe: Any) -> Any:
    """The pipeline of the same parts without perturbed attention, ControlNet or adapter."""
    name = re.sub("PAG|ControlNet|Union|Adapter", "", type(pipe).__name__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name).from_pipe(pipe)


# --- folders ---


def test_a_network_that_is_told_its_guidance_takes_no_negative_prompt():
    with pytest.raises(InputError, match="leave out the negative prompt"):
        TextToImage(FAMILIES["lcm"].made(), negative="dogs")


@pytest.mark.parametrize("name", PERTURBED)
def test_images_that_are_left_early_leave_no_attention_perturbed(name: str):
    pipe = FAMILIES[name].made()
    before = processors(getattr(pipe, FAMILIES[name].network))

    def stop(done: int, total: int | None) -> None:
        raise InputError("stopped")

    with pytest.raises(InputError, match="stopped"):
        TextToImage(pipe, steps=3, height=16, width=16).images(["a cat"], [4], progress=stop)
    assert processors(getattr(pipe, FAMILIES[name].network)) == before


# --- perturbed-attention guidance ---


@pytest.mark.parametrize("name", PERTURBED)
def test_a_calibration_of_the_model_without_perturbed_attention_serves_it_with_it(name: str):
    family = FAMILIES[name]
    perturbed: Any = to_denoiser(family.made())
    plain = original(family.made())
    assert to_denoiser(plain).fingerprint == perturbed.fingerprint
    before, kept = perturbed.fingerprint, []
    with watched(perturbed, lambda *call: kept.append(perturbed.fingerprint)):
        family.call(perturbed.pipe)
    assert set(kept) == {before}


@pytest.mark.parametrize("name", PERTURBED)
def test_a_blocked_call_leaves_no_attention_perturbed(name: str):
    family = FAMILIES[name]
    pipe = family.made()
    before = processors(getattr(pipe, family.network))
    guard = Guard(pipe, scores(to_denoiser(pipe), -1e9), policy="block")
    with guard.attached(), pytest.raises(MemorizationBlocked):
        family.call(pipe)
    assert processors(getattr(pipe, family.network)) == before


def test_several_images_and_no_perturbing_are_judged_row_by_row():
    family = FAMILIES["sd1-pag"]
    pipe = family.made()
    denoiser = to_denoiser(pipe)
    alone = {}
    options: dict[str, Any]
    for options in ({"pag_scale": 0.0}, {}, {"guidance_scale": 4.0}, {"guidance_scale": 4.0, "pag_scale": 0.0}):
        with Guard(pipe, scores(denoiser, 1e9)).attached():
            reports = family.call(pipe, ["a cat", "a dog", "a cow"], **options).memorization
        alone[str(options)] = [report.iso for report in reports]
        assert [report.verdict for report in reports] == ["clear"] * 3
    first, *others = alone.values()
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)
    assert len(set(first)) == 3


def test_perturbed_attention_that_leaves_a_normalization_out_is_another_network():
    family = unets.family(lambda: StableDiffusion3PAGPipeline.from_pipe(stable_diffusion_3_5()), network="transformer")
    pipe = family.made()
    guard = Guard(pipe, scores(to_denoiser(pipe), 1e9), unverified="allow")
    with guard.attached():
        (told,) = family.call(pipe).memorization
        (fine,) = family.call(pipe, pag_scale=0.0).memorization
    assert told.verdict == "not applicable" and "qk_norm" in told.reason and "pag_scale=0" in told.reason
    assert fine.verdict == "clear"


# --- ControlNets and T2I-Adapters ---


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_what_is_told_of_an_image_is_judged_by_its_prompt_alone_and_says_so(name: str, strength: float):
    family = FAMILIES[name]
    pipe = family.made()
    name_of_it = next(option for option in family.options if option.endswith("_conditioning_scale"))
    options: dict[str, Any] = {name_of_it: strength}
    expected = family.call(pipe, **options).images
    guard = Guard(pipe, scores(to_denoiser(pipe), 1e9), unverified="allow")
    with guard.attached():
        made = family.call(pipe, **options)
    assert torch.equal(torch.as_tensor(made.images), torch.as_tensor(expected))
    (report,) = made.memorization
    assert report.verdict == "not applicable" and "ControlNet or T2I-Adapter" in report.reason
    assert "guard.check()" in report.reason and "\n" not in report.reason
    assert guard.check("a cat", height=16, width=16).verdict == "clear"


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_check_with_a_controlnet_is_that_of_the_model_without(name: str):
    family = FAMILIES[name]
    pipe = family.made()
    plain = {"unet": "UNet2DConditionModel", "transformer": "SD3Transformer2DModel"}[family.network]
    assert type(getattr(pipe, family.network)).__name__ == plain
    guard, other = Guard(pipe), Guard(original(pipe))
    assert guard.denoiser.fingerprint == other.denoiser.fingerprint
    found, expected = (g.check("a cat", height=16, width=16) for g in (guard, other))
    assert found.score == pytest.approx(expected.score)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_no_image_is_made_of_a_prompt_alone_where_one_is_to_be_given(name: str):
    guard = Guard(FAMILIES[name].made())
    with pytest.raises(InputError, match=r"image beside the prompt.*from_pipe"):
        guard.locate("a cat", steps=2, height=16, width=16)
    with pytest.raises(InputError, match="image beside the prompt"):
        TextToImage(guard.denoiser.pipe)  # type: ignore[attr-defined]


def test_a_prompt_is_rewritten_with_a_controlnet_by_the_network_without():
    denoiser = to_denoiser(FAMILIES["sd1-controlnet"].made())
    guard = Guard(denoiser, scores(denoiser, -1e9))
    assert guard.mitigate("a cat", "rewrite", height=16, width=16).mitigation.score_before is not None


# --- few steps ---


@pytest.mark.parametrize("name", ["lcm", "lcm-lora", "tcd"])
def test_models_of_few_steps_are_judged_by_the_first_of_them(name: str):
    family = FAMILIES[name]
    pipe = family.made()
    denoiser = to_denoiser(pipe)
    assert denoiser.levels.pure_noise.time.item() == 999
    with Guard(pipe, scores(denoiser, 1e9)).attached():
        (report,) = family.call(pipe, steps=4).memorization
    assert report.verdict == "clear" and report.forward_rows == 1  # the empty prompt's alone


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_what_does_not_say_that_it_is_distilled_can_be_told(scale: float):
    family = turbo()
    pipe = family.made()
    assert to_denoiser(pipe).reference == "empty branch"
    denoiser = to_denoiser(pipe, "empty prompt")
    guard = Guard(denoiser, scores(denoiser, 1e9))
    assert guard.check("", height=16, width=16, draws=1).iso == pytest.approx(0, abs=1e-4)
    expected = guard.check("a cat", height=16, width=16, draws=1)
    with guard.attached():
        (report,) = family.call(pipe, steps=1, guidance_scale=scale).memorization
    assert report.reference == expected.reference == "empty prompt" and report.verdict == "clear"
    assert report.fingerprint == expected.fingerprint != to_denoiser(pipe).fingerprint


def turbo() -> Family:
    return unets.family(unets.turbo)
