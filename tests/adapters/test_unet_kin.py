"""Pipelines around the networks of other families: what perturbs attention, what is told of an image, few steps."""

import warnings
from typing import Any

import diffusers
import pytest
from diffusers import StableDiffusion3PAGPipeline

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.adapters.network_calls import watched
from cryptomnesia.calibration import calibrate
from cryptomnesia.errors import MemorizationBlocked

from ..helpers.families import Family, families
from ..helpers.families import stable_diffusion as unets
from ..helpers.families.stable_diffusion_3 import stable_diffusion_3_5
from ..helpers.guarded import BENIGN, above

FAMILIES = families()
SHAPE = (4, 8, 8)
PERTURBED = [name for name in FAMILIES if name.endswith("-pag") and FAMILIES[name].attached]


def scores(denoiser: Any, score: float) -> Any:
    return above(calibrate(denoiser, denoiser.encode(BENIGN), draws=1, latent_shape=SHAPE), score)


def processors(network: Any) -> dict[str, type]:
    return {name: type(processor) for name, processor in network.attn_processors.items()}


def original(pipe: Any) -> Any:
    """The pipeline of the same parts without perturbed attention."""
    name = type(pipe).__name__.replace("PAG", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(diffusers, name).from_pipe(pipe)


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
