"""What a sidecar says of seeds, settings and guiders of one or more samplers, run by ComfyUI itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cryptomnesia.sidecar import UNKNOWN

from .graphs import BENIGN, demo, given, ours, ran, sampler
from .harness import Comfy
from .results import node
from .saving import AGAINST, OTHER, against, saved, texts, told, words

pytestmark = pytest.mark.usefixtures("output")


def advanced(latent: str, **changes: Any) -> dict[str, Any]:
    own = sampler(latent_image=[latent, 0])["inputs"]
    known = {key: own[key] for key in own if key not in ("seed", "denoise")}
    return node("KSamplerAdvanced", **known | {"return_with_leftover_noise": "disable"} | changes)


def test_two_stages(comfy: Comfy, output: Path):
    """The second adds no noise: its seed does nothing."""
    first = {"add_noise": "enable", "noise_seed": 11, "cfg": 7.0, "start_at_step": 0, "end_at_step": 1}
    second = {"add_noise": "disable", "noise_seed": 22, "cfg": 2.0, "start_at_step": 1, "end_at_step": 9}
    prompt = demo(BENIGN) | {
        "first": advanced("latent", **first | {"return_with_leftover_noise": "enable"}),
        "second": advanced("first", **second),
    }
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    settings = said["sampling"]
    assert said["seed"] == "11" and (settings["cfg"], settings["end_at_step"], settings["add_noise"]) == (
        7.0,
        1,
        "enable",
    )
    assert (settings["stage 2 cfg"], settings["stage 2 start_at_step"]) == (2.0, 1) and "stage 2 seed" not in settings
    assert said["prompt"]["original"] == BENIGN


def test_a_second_pass_at_a_larger_size(comfy: Comfy, output: Path):
    """With a prompt, a seed and a strength of its own, and a detour over pixels."""
    prompt = demo(BENIGN) | {
        "pixels": node("VAEDecode", samples=["sampler", 0], vae=["load", 2]),
        "larger": node("ImageScaleBy", image=["pixels", 0], upscale_method="nearest-exact", scale_by=2.0),
        "again": node("VAEEncode", pixels=["larger", 0], vae=["load", 2]),
        "more": words(OTHER),
        "second": sampler(latent_image=["again", 0], positive=["more", 0], seed=9, denoise=0.5),
    }
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    assert (said["seed"], said["sampling"]["denoise"]) == ("7", 1.0)
    assert (said["sampling"]["stage 2 seed"], said["sampling"]["stage 2 denoise"]) == ("9", 0.5)
    assert said["prompt"]["original"] == f"{BENIGN}\n{OTHER}"


def custom(guider: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "noise": node("RandomNoise", noise_seed=5),
        "chosen": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1.0),
        "guider": guider,
        "sampler": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["chosen", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
    } | changes


def test_both_prompts_and_scales_of_a_double_guider(comfy: Comfy, output: Path):
    scales = {"cfg_conds": 3.0, "cfg_cond2_negative": 5.0, "style": "regular"}
    conditionings = {"cond1": ["text", 0], "cond2": ["more", 0], "negative": ["empty", 0]}
    guider = node("DualCFGGuider", model=["load", 0], **conditionings, **scales)
    prompt = against() | {"more": words(OTHER)} | custom(guider)
    assert texts(comfy, output, prompt) == (f"{BENIGN}\n{OTHER}", AGAINST)
    said = told(output)
    assert said["sampling"] == {"sampler_name": "euler", "scheduler": "normal", "steps": 2, "denoise": 1.0} | scales
    assert said["seed"] == "5"


def test_the_guidance_that_is_handed_to_a_model(comfy: Comfy, output: Path):
    """The last one on the way counts; a number may come from elsewhere."""
    prompt = against() | {
        "number": node("PrimitiveFloat", value=2.5),
        "early": node("FluxGuidance", conditioning=["text", 0], guidance=9.0),
        "late": node("FluxGuidance", conditioning=["early", 0], guidance=["number", 0]),
    }
    prompt |= custom(node("BasicGuider", model=["load", 0], conditioning=["late", 0]))
    assert texts(comfy, output, prompt) == (BENIGN, None)
    assert told(output)["sampling"]["guidance"] == 2.5 and "cfg" not in told(output)["sampling"]


def test_two_samplers_on_parts_of_one_schedule(comfy: Comfy, output: Path):
    guider = node("CFGGuider", model=["load", 0], positive=["text", 0], negative=["empty", 0], cfg=["number", 0])
    prompt = against() | custom(guider, split=node("SplitSigmas", sigmas=["sigmas", 0], step=1))
    inputs = prompt["sampler"]["inputs"]
    prompt["none"] = node("DisableNoise")
    prompt["number"] = node("PrimitiveFloat", value=3.0)
    late = {"noise": ["none", 0], "sigmas": ["split", 1], "latent_image": ["sampler", 0]}
    prompt["second"] = node("SamplerCustomAdvanced", **inputs | late)
    prompt["sampler"] = node("SamplerCustomAdvanced", **inputs | {"sigmas": ["split", 0]})
    ran(comfy, saved(comfy, prompt, "second"))
    said = told(output)
    assert said["seed"] == "5" and said["sampling"]["cfg"] == said["sampling"]["stage 2 cfg"] == 3.0
    assert said["sampling"]["step"] == 1 and "stage 2 seed" not in said["sampling"]
    assert (said["prompt"]["original"], said["prompt"]["negative"]) == (BENIGN, AGAINST)


def test_numbers_that_only_the_run_knows_are_unknown(comfy: Comfy, output: Path):
    prompt = demo(BENIGN) | {"number": given(comfy, 2), "sampler": sampler(seed=["number", 0], steps=["number", 0])}
    ran(comfy, saved(comfy, prompt))
    said = told(output)
    assert said["seed"] == said["sampling"]["steps"] == UNKNOWN and said["sampling"]["cfg"] == 4.0


def test_numbers_from_nodes_are_told(comfy: Comfy, output: Path):
    prompt = demo(BENIGN) | {"number": node("SeedNode", seed=2), "sampler": sampler(seed=["number", 0])}
    ran(comfy, saved(comfy, prompt))
    assert told(output)["seed"] == "2"


def test_images_that_nobody_sampled_have_no_prompt(comfy: Comfy, output: Path):
    prompt = {"images": given(comfy, torch.zeros(1, 8, 8, 3))}
    prompt["save"] = ours(comfy, "SaveImage", images=["images", 0], filename_prefix="made")
    ran(comfy, prompt)
    said = told(output)
    assert said["seed"] is None and said["sampling"] == {} and said["prompt"]["original"] is None
