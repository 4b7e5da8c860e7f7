"""Which models a check is for: told by what they take and make, not by how they count their channels."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cryptomnesia.adapters.comfyui import ComfyDenoiser
from cryptomnesia.errors import NotApplicable

from . import models
from .graphs import given, keep, links, ours, ran, report_of, tiny, with_check
from .harness import Comfy

pytestmark = pytest.mark.usefixtures("comfy")
TRANSFORMERS = ("chroma", "qwen", "wan", "schnell", "sd3")


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_models_that_cut_their_latents_into_patches_are_checked(comfy: Comfy, kind: str):
    report = report_of(comfy, with_check(comfy, tiny(comfy, kind), draws=1))
    assert report["verdict"] == "uncalibrated" and report["score"] > 0


@pytest.mark.parametrize("kind", ["qwen", "wan"])
def test_an_image_is_a_film_of_one_frame(comfy: Comfy, kind: str):
    """Whichever latent it starts from."""
    plain = report_of(comfy, with_check(comfy, tiny(comfy, kind), draws=1))
    for frames in (1, 3):
        film = {"samples": torch.zeros(1, 16, frames, 8, 8)}
        report = report_of(comfy, with_check(comfy, tiny(comfy, kind) | {"latent": given(comfy, film)}, draws=1))
        if frames == 1:
            assert report == plain
        else:
            assert report["verdict"] == "not applicable" and "video" in report["reason"]


def test_other_nodes_take_them_too(comfy: Comfy):
    prompt = tiny(comfy, "qwen")
    prompt["noise"] = ours(comfy, "GuardedNoise", **links(prompt), noise_seed=3)
    prompt["noise"]["inputs"]["candidates"] = 2
    assert "score" in ran(comfy, prompt | {"kept": keep("noise")}).outputs["noise"][2]


def network(kind: str, **changes: Any) -> ComfyDenoiser:
    made = models.KINDS[kind]
    models.KINDS["changed"] = replace(made, network=made.network | changes)
    try:
        return ComfyDenoiser(models.model("changed"))
    finally:
        del models.KINDS["changed"]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("eps", {"in_channels": 9}),  # with a mask and a masked image
        ("eps", {"in_channels": 8}),  # edited by words, or seen from elsewhere
        ("sdxl", {"in_channels": 9}),
        ("sd3", {"in_channels": 33}),
        ("schnell", {"in_channels": 32}),  # led by edges or depth
        ("schnell", {"in_channels": 96}),  # filling
        ("wan", {"in_dim": 36}),  # image to video
    ],
)
def test_what_starts_from_an_image_is_refused(kind: str, changes: dict[str, int]):
    with pytest.raises(NotApplicable, match="inpainting"):
        network(kind, **changes).require_guidance()
    network(kind).require_guidance()


def test_a_mask_that_is_laid_beside_is_told_by_the_model_itself():
    denoiser = network("eps")
    denoiser.model.model.set_inpaint()
    with pytest.raises(NotApplicable, match="inpainting"):
        denoiser.require_guidance()


@pytest.mark.parametrize("form", ["StableAudio1", "ACEAudio", "ACEAudio15", "Hunyuan3Dv2"])
def test_sound_and_shapes_are_refused(form: str):
    import comfy.latent_formats

    denoiser = network("sd3")
    denoiser.model.add_object_patch("latent_format", getattr(comfy.latent_formats, form)())
    with pytest.raises(NotApplicable, match="sound"):
        denoiser.require_guidance()


def test_a_mask_of_one_text_is_not_kept_for_the_empty_prompt():
    """It has another length."""
    templates = ComfyDenoiser(models.model("qwen"))._templates
    text, empty = torch.zeros(1, 8, models.WIDTH), torch.zeros(1, 3, models.WIDTH)
    like = [[text, {"attention_mask": torch.ones(1, 8), "strength": 0.5}]]
    ((_, options),) = templates.without_words(like, [[empty, {}]])
    assert options == {"strength": 0.5}
