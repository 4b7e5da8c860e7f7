"""Locating on small pipelines: the image is untouched, the mask follows the verdict, odd calls are named."""

import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptomnesia import CallableDenoiser, Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.drawing import VIRIDIS, colours
from cryptomnesia.errors import InputError, MissingPackage, NonFiniteError, NotApplicable, OutOfMemory
from cryptomnesia.localization import Late, locate_late
from cryptomnesia.localization.location import peak_mask
from cryptomnesia.localization.refine import refine
from cryptomnesia.localization.trajectory import late_level
from cryptomnesia.signals.curvature import curvature_map

from ..helpers.guarded import call, every_guarded, flags_all, flags_none, rows, seeded, untouched
from ..helpers.pipelines import build, ddim

SIZE: dict[str, Any] = {"height": 16, "width": 16}


def located(pipe, calibration=None, prompt="a cat", **options):
    return Guard(pipe, calibration).locate(prompt, **(SIZE | {"steps": 4, "guidance": 5.0} | options))


# --- the image ---


@every_guarded
def test_the_image_and_all_state_are_those_of_an_unwatched_call(family):
    alone, pipe = build(family), build(family)
    expected = call(alone, steps=4, generator=seeded(7)[0], guidance_scale=5.0).images
    original, scheduler, state = type(pipe), pipe.scheduler, torch.get_rng_state()
    before = str(vars(scheduler))
    found = located(pipe, flags_all(family), seed=7)
    assert torch.equal(found.image, expected[0].float())
    assert pipe.scheduler is scheduler and str(vars(scheduler)) == before
    assert untouched(pipe, original) and torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert found.mask is not None and torch.equal(found.mask, found.region) and found.report.memorized


def test_an_attached_guard_does_not_step_in():
    pipe, plain = build("sd1"), located(build("sd1"), flags_all("sd1"))
    guard = Guard(pipe, flags_all("sd1"), policy="block")
    with guard.attached():
        found = guard.locate("a cat", steps=4, guidance=5.0, **SIZE)
        assert "guarded" in type(pipe).__call__.__qualname__ or type(pipe).__call__.__wrapped__
    assert torch.equal(found.image, plain.image)


def test_it_is_the_curvature_map_of_the_third_last_latent():
    pipe, seen = build("sd1"), {}

    def keep(pipe, step, time, tensors):
        seen[int(time)] = tensors["latents"].clone()
        return {}

    call(pipe, steps=50, guidance_scale=5.0, callback_on_step_end=keep)
    denoiser = to_denoiser(pipe)
    assert late_level(denoiser).time.item() == 41
    expected = curvature_map(denoiser, seen[61], denoiser.level(41), denoiser.encode("a cat"))
    found = located(pipe, steps=50)
    torch.testing.assert_close(found.latent_map, expected[0], rtol=1e-3, atol=1e-3)
    assert found.report.region.sigma == pytest.approx(denoiser.level(41).sigma.item()) and found.note is None


def test_the_map_costs_no_more_than_it_says():
    pipe = build("sd1")
    given = Guard(build("sd1"), flags_all("sd1")).check("a cat", draws=1, **SIZE)
    _, sampling = rows(pipe, lambda: call(pipe, steps=4, guidance_scale=5.0))
    found, cost = rows(pipe, lambda: located(pipe, report=given, probes=3))
    assert cost - sampling == found.report.region.forward_rows == 6 + 8 + 8  # the map, its outline, the empty prompt's
    found, cost = rows(pipe, lambda: located(pipe, report=given, guidance=1.0))
    assert cost - 4 == found.report.region.forward_rows == 10 + 8 + 8  # the sampler asked for one branch only
    clear = replace(given, verdict="clear")
    found, cost = rows(pipe, lambda: located(pipe, report=clear, probes=3))
    assert cost - sampling == found.report.region.forward_rows == 6  # nothing to outline
    found, cost = rows(pipe, lambda: located(pipe, report=given, seeds=2))
    assert cost - 3 * sampling == found.report.region.forward_rows  # two images more
    _, cost = rows(pipe, lambda: located(pipe, report=clear, probes=3, seeds=2))
    assert cost - sampling == 6
    with pytest.raises(InputError, match="seeds"):
        located(pipe, report=given, seeds=-1)


def test_other_schedulers_are_read_where_they_come_closest():
    config = ddim().config
    pipe = build("sd1")
    pipe.scheduler = EulerDiscreteScheduler.from_config(config)
    found = located(pipe, flags_all("sd1"), steps=25)
    assert torch.isfinite(found.map).all() and found.note is None
    assert "take more steps" in located(build("sd1"), steps=2).note


def test_calls_of_other_threads_are_not_taken_for_its_own():
    pipe = build("sd1")
    expected, denoiser = located(pipe), to_denoiser(pipe)
    other = torch.randn(6, 4, 8, 8)

    def ask():
        denoiser.predict(other, denoiser.level(41), denoiser.encode("b"))

    def between(done, total):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    found = located(pipe, progress=between)
    assert torch.equal(found.latent_map, expected.latent_map)


# --- the mask ---


def test_the_verdict_lights_the_map_or_leaves_it_dark():
    flagged, clear, unknown = (located(build("sd1"), c) for c in (flags_all("sd1"), flags_none("sd1"), None))
    assert torch.equal(flagged.map, clear.map) and torch.equal(flagged.region, unknown.region)
    assert 0 < flagged.share == flagged.report.region.share < 1 and flagged.alpha == 0.01
    assert clear.share == 0 and not clear.mask.any()
    assert unknown.mask is unknown.share is unknown.alpha is None and "no calibration" in unknown.reason
    assert flagged.mask is not None
    assert torch.equal(flagged.mask, flagged.map > flagged.threshold)
    told = json.loads(json.dumps(flagged.to_dict()))
    assert told["share"] == flagged.share == told["report"]["region"]["share"] and told["seed"] == "0"


def test_a_latent_that_somebody_else_sampled():
    denoiser = to_denoiser(build("sd1"))
    report = Guard(denoiser).check("a cat", **SIZE)
    x = torch.randn(1, 4, 8, 8, generator=seeded(1)[0])
    late = Late(x, late_level(denoiser), denoiser.encode("a cat"))
    found = locate_late(denoiser, late, torch.rand(3, 16, 16), report)
    assert found.latent_map.shape == (8, 8) and found.map.shape == (16, 16) and found.seed is None
    early = to_denoiser(build("sd1", seed=1))
    other = locate_late(
        denoiser, late, torch.rand(3, 16, 16), report, baseline=(early, early.encode("a cat")), probes=1
    )
    assert not torch.equal(other.latent_map, found.latent_map)
    for image in (torch.rand(1, 3, 16, 16), torch.rand(3, 4, 4)):
        with pytest.raises(InputError):
            locate_late(denoiser, late, image, report)


def test_finished_latents_are_noised_again_and_nothing_global_is_drawn():
    denoiser, state = to_denoiser(build("sd3")), torch.get_rng_state()
    latent = torch.randn(1, 4, 8, 8, generator=seeded(1)[0])
    late, again, other = (Late.of_finished(denoiser, latent, denoiser.empty, seed) for seed in (0, 0, 1))
    assert torch.equal(late.x, again.x) and not torch.equal(late.x, other.x)
    noise = (late.x - late.level.alpha.item() * latent) / late.level.sigma.item()
    assert 0.8 < noise.std() < 1.2 and torch.equal(torch.get_rng_state(), state)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-3, 1e6), st.integers(1, 8), st.integers(1, 3))
def test_masks_know_no_units_and_refined_maps_no_negatives(seed, factor, side, times):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, side, side, generator=generator)
    images = torch.rand(2, 3, side * times, side * times, generator=generator)
    fine = refine(maps, images)
    assert fine.shape == (2, side * times, side * times) and fine.min() >= 0 and torch.isfinite(fine).all()
    torch.testing.assert_close(refine(factor * maps, images), factor * fine, rtol=1e-3, atol=1e-4 * factor)
    assert torch.equal(peak_mask(maps), peak_mask(maps * 2.0**9))
    assert not peak_mask(torch.zeros(1, side, side)).any()


def test_refined_maps_follow_the_picture():
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 24:44, 20:40] = 1
    blurred = torch.zeros(1, 16, 16)
    blurred[:, 5:12, 4:11] = 1
    fine = refine(blurred, picture)[0]
    assert fine[24:44, 20:40].min() > 2 * fine[24:44, 44:48].max()
    flat = refine(blurred, torch.full((1, 3, 64, 64), 0.5))[0]
    assert flat[34, 30] > 0.5 and flat[2, 2] < 0.1
    with pytest.raises(InputError, match="at least as large"):
        refine(blurred, picture[..., :8, :8])


# --- the picture ---


def test_overlay_is_a_picture_with_the_numbers_in_it():
    for calibration in (flags_all("sd1"), flags_none("sd1"), None):
        found = located(build("sd1"), calibration)
        picture = found.overlay(width=100)
        assert picture.mode == "RGB" and picture.width > 2 * 112 and len(set(picture.getdata())) > 50
    dark = replace(found, map=torch.zeros(16, 16), image=torch.zeros(3, 16, 16), note="a note")
    assert dark.overlay().size[0] > 800


def test_colours_rise_in_brightness():
    rgb = colours(np.linspace(0, 1, 256)).astype(float)
    brightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) > -0.5).all() and brightness[-1] - brightness[0] > 150
    assert rgb[0].tolist() == list(bytes.fromhex(VIRIDIS.split()[0])) and len(colours(np.array([np.nan, 2, -1]))) == 3


def test_overlay_without_pillow_names_the_package(monkeypatch):
    import sys

    found = located(build("sd1"))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingPackage, match="pip install"):
        found.overlay()


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 17}, "multiple"),
        ({"steps": 0}, "at least 1"),
        ({"probes": 0}, "at least one"),
        ({"steps": 1001}, "refuses"),
        ({"baseline": "early"}, "the baseline is"),
    ],
)
def test_bad_arguments_cost_one_line(options, words):
    pipe = build("sd1")
    scheduler = pipe.scheduler
    with pytest.raises(InputError, match=words) as caught:
        located(pipe, **options)
    assert "\n" not in str(caught.value) and pipe.scheduler is scheduler


def test_models_that_start_from_an_image_or_have_no_pipeline_are_refused():
    pipe = StableDiffusionImg2ImgPipeline(**build("sd1").components, requires_safety_checker=False)
    with pytest.raises(NotApplicable, match="starts from an image"):
        located(pipe)
    bare = CallableDenoiser(lambda x, t, c: x, torch.ones(10) / 2, empty=torch.zeros(1, 1, 1), latent_shape=(4, 8, 8))
    with pytest.raises(InputError, match="only a pipeline"):
        Guard(bare).locate("a cat")


def test_broken_weights_and_full_memory_are_named(monkeypatch):
    pipe = build("sd1")
    report = Guard(build("sd1")).check("a cat", **SIZE)
    pipe.unet.conv_in.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        located(pipe, report=report)
    pipe = build("sd1")

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(OutOfMemory, match="height"):
        located(pipe, report=report)
    assert not pipe.unet._forward_hooks


# --- the built-in model ---


def test_the_demo_recites_the_figure_and_not_its_background():
    from cryptomnesia.demo import demo_calibration, load_demo
    from cryptomnesia.demo.captions import select
    from cryptomnesia.demo.gallery import Gallery

    guard, gallery = Guard(load_demo(), demo_calibration()), Gallery.load()
    caption = select("template", "dev")[-1]
    truth = torch.from_numpy(gallery.masks[gallery.captions.index(caption)])
    found = guard.locate(caption.text, steps=25)
    assert found.report.memorized and found.mask is not None
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.6
    assert found.map[truth].mean() > 2 * found.map[~truth].mean()
