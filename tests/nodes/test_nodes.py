"""Memorization Check through the real ComfyUI: verdicts on the built-in model, scores on every family."""

import math

import pytest
import torch

from cryptomnesia import Guard, load_demo
from cryptomnesia.demo import demo_calibration

from . import models
from .graphs import BENIGN, MEMORIZED, complaint, demo, given, keep, ran, report_of, tiny, with_check, wordless
from .harness import Comfy
from .results import node

NUMBERS = ("score", "iso", "p_value")


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(load_demo(), demo_calibration())


def test_a_memorized_caption_is_flagged(comfy: Comfy):
    report, score, p_value, memorized, text = ran(comfy, with_check(comfy, demo())).outputs["check"]
    assert memorized and report["verdict"] == "memorized" and report["prompt"] == MEMORIZED
    assert (score, p_value) == (report["score"], report["p_value"]) and p_value <= report["alpha"] == 0.01
    assert text.startswith("LIKELY MEMORIZED: p = 0.003") and f"{score:.3f} from 4 noise draws" in text


def test_a_benign_caption_is_clear(comfy: Comfy):
    report, _, p_value, memorized, text = ran(comfy, with_check(comfy, demo(BENIGN))).outputs["check"]
    assert not memorized and report["verdict"] == "clear" and p_value > 0.1 and text.startswith("clear: p = 0.")
    assert report["seed"] == "0" and report["reason"] is None


@pytest.mark.parametrize("text", [MEMORIZED, BENIGN])
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_numbers_are_those_of_the_library(comfy: Comfy, guard: Guard, text: str, seed: int):
    found = report_of(comfy, with_check(comfy, demo(text), check_seed=seed))
    expected = guard.check(text, seed=seed).to_dict()
    assert [found[name] for name in NUMBERS] == pytest.approx([expected[name] for name in NUMBERS], abs=1e-3)
    for name in ("verdict", "alpha", "fingerprint", "calibration_id", "seed", "draws", "prompt"):
        assert found[name] == expected[name]


def test_the_alignment_is_measured_if_asked_for(comfy: Comfy, guard: Guard):
    prompt = with_check(comfy, demo(), alignment=True)
    assert report_of(comfy, prompt)["aniso"] == pytest.approx(guard.check(MEMORIZED, alignment=True).aniso, abs=1e-3)
    assert report_of(comfy, with_check(comfy, demo()))["aniso"] is None


@pytest.mark.parametrize("kind", models.KINDS)
def test_every_family_has_a_score(comfy: Comfy, kind: str):
    prompt = with_check(comfy, tiny(comfy, kind), calibration="none", alignment=True)
    report, score, p_value, memorized, text = ran(comfy, prompt).outputs["check"]
    assert report["verdict"] == "uncalibrated" and "no calibration was chosen" in report["reason"]
    assert math.isfinite(score) and score > 0 and -1 <= report["aniso"] <= 1
    assert math.isnan(p_value) and not memorized and text.startswith("uncalibrated")
    # the empty prompt against itself is no guidance at all
    assert report_of(comfy, prompt | {"text": wordless(comfy, prompt)})["score"] < 1e-3 * score


def test_unknown_samplings_have_none(comfy: Comfy):
    prompt = demo() | {"x0": node("ModelSamplingDiscrete", model=["load", 0], sampling="x0", zsnr=False)}
    report = report_of(comfy, with_check(comfy, prompt, model=["x0", 0]))
    assert report["verdict"] == "not applicable" and "X0" in report["reason"]


def test_a_batch_of_images_has_the_report_of_one(comfy: Comfy):
    one, three = (report_of(comfy, with_check(comfy, demo(batch=batch))) for batch in (1, 3))
    assert one == three


@pytest.mark.parametrize("change", ["image", "mask"])
def test_an_image_to_start_from_is_not_applicable(comfy: Comfy, change: str):
    latent = models.latent("eps", size=16)
    latent |= {"samples": torch.ones(1, 4, 16, 16)} if change == "image" else {"noise_mask": torch.ones(1, 1, 16, 16)}
    report = report_of(comfy, with_check(comfy, demo() | {"latent": given(comfy, latent)}))
    assert report["verdict"] == "not applicable" and "starts from an image" in report["reason"]


def test_a_video_is_not_applicable(comfy: Comfy):
    latent = given(comfy, {"samples": torch.zeros(1, 4, 2, 16, 16)})
    assert report_of(comfy, with_check(comfy, demo() | {"latent": latent}))["verdict"] == "not applicable"


def test_empty_latents_of_other_families_are_fitted_as_samplers_do(comfy: Comfy):
    """EmptyLatentImage gives four channels, and models with 16 take it all the same."""
    prompt = with_check(
        comfy, tiny(comfy, "sd3") | {"latent": node("EmptyLatentImage", width=64, height=64, batch_size=1)}
    )
    assert report_of(comfy, prompt)["score"] == report_of(comfy, with_check(comfy, tiny(comfy, "sd3")))["score"]


@pytest.mark.parametrize("wrong", ["text", "clip"])
def test_the_clip_of_another_model_is_told_with_both_widths(comfy: Comfy, wrong: str):
    prompt = demo() | {"other": node("TestModel", kind="eps", weights=0)}
    if wrong == "text":
        prompt["text"] = node("CLIPTextEncode", clip=["other", 1], text=MEMORIZED)
    line = complaint(comfy, with_check(comfy, prompt, **({"clip": ["other", 1]} if wrong == "clip" else {})))
    assert "32 wide" in line and "reads 128" in line and "CLIP" in line


def test_the_text_is_found_behind_other_nodes(comfy: Comfy):
    prompt = demo() | {
        "words": node("PrimitiveString", value=BENIGN),
        "text": node("CLIPTextEncode", clip=["load", 1], text=["words", 0]),
        "area": node("ConditioningSetAreaStrength", conditioning=["text", 0], strength=1.0),
    }
    assert report_of(comfy, with_check(comfy, prompt, positive=["area", 0]))["prompt"] == BENIGN
    unknown = demo() | {"text": given(comfy, ran(comfy, demo() | {"kept": keep("text")}).outputs["text"][0])}
    report = report_of(comfy, with_check(comfy, unknown))
    assert report["prompt"] is None and report["verdict"] == "memorized"
