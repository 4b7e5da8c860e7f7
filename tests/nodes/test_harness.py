"""The harness itself: what it runs, what it says when a run fails, and that it leaves no traces."""

import importlib.util
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch

from . import models
from .harness import Comfy, Invalid
from .results import node

every_kind = pytest.mark.parametrize("kind", models.KINDS)


def sampling(kind: str, steps: int = 2, cfg: float = 4.0, **more):
    """A prompt that samples a latent with ComfyUI's own KSampler, node 5."""
    inputs = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    inputs |= {"seed": 7, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    return {
        "1": node("TestModel", kind=kind, weights=0),
        "2": node("TestConditioning", kind=kind, number=1),
        "3": node("TestConditioning", kind=kind, number=2),
        "4": node("TestLatent", kind=kind),
        "5": node("KSampler", **inputs | more),
        "6": node("TestKeep", value=["5", 0]),
    }


def latent(result) -> torch.Tensor:
    assert result.ok, result.error
    return result.outputs["5"][0]["samples"]


@every_kind
def test_every_model_goes_through_the_sampler_and_its_vae(comfy: Comfy, kind: str):
    decoding = {"7": node("VAEDecode", samples=["5", 0], vae=["1", 2]), "8": node("TestKeep", value=["7", 0])}
    result = comfy.run(sampling(kind) | decoding)
    made = latent(result)
    frames = (1,) if kind in ("qwen", "wan") else ()
    side = models.KINDS[kind].size
    assert made.shape == (1, models.KINDS[kind].channels, *frames, side, side)
    assert made.isfinite().all() and made.std() > 0.01
    picture = result.outputs["7"][0]
    assert picture.shape == (1, 8 * side, 8 * side, 3) and picture.isfinite().all() and picture.std() > 0.001
    assert torch.equal(made, latent(comfy.run(sampling(kind, seed=7))))


@every_kind
def test_every_model_heeds_its_conditions(comfy: Comfy, kind: str):
    plain = latent(comfy.run(sampling(kind)))
    other = sampling(kind)
    other["2"] = node("TestConditioning", kind=kind, number=3)
    moved = latent(comfy.run(other))
    assert (plain - moved).abs().max() > 1e-3 * plain.std()


def test_flux_heeds_its_guidance(comfy: Comfy):
    more = sampling("flux", positive=["7", 0]) | {"7": node("FluxGuidance", conditioning=["2", 0], guidance=9.0)}
    assert not torch.equal(latent(comfy.run(more)), latent(comfy.run(sampling("flux"))))


@pytest.mark.parametrize("kind", [kind for kind, made in models.KINDS.items() if made.clip])
def test_the_text_encoder_is_a_real_one(comfy: Comfy, kind: str):
    words = {
        "7": node("CLIPTextEncode", clip=["1", 1], text="a cat"),
        "8": node("CLIPTextEncode", clip=["1", 1], text="a dog " * 100),
    }
    result = comfy.run(sampling(kind, positive=["7", 0], negative=["8", 0]) | words)
    assert latent(result).isfinite().all()
    short, long = (result.outputs[number][0][0] for number in "78")
    assert short[0].shape == (1, 77, models.KINDS[kind].text) and long[0].shape[1] > 77
    assert (short[1]["pooled_output"].shape[-1] == models.POOLED) and short[0].isfinite().all()


@every_kind
def test_models_outside_a_prompt_are_the_same_as_inside(comfy: Comfy, kind: str):
    model, clip, vae = models.build(kind)
    assert (clip is not None) == models.KINDS[kind].clip and vae is not None
    sampler = comfy.nodes.common_ksampler
    conditions = (models.conditioning(kind, 1), models.conditioning(kind, 2))
    made = sampler(model, 7, 2, 4.0, "euler", "normal", *conditions, models.latent(kind))[0]["samples"]
    assert torch.allclose(made, latent(comfy.run(sampling(kind))), atol=1e-5)


def test_kinds_are_what_they_say(comfy: Comfy):
    sampling_of = {kind: models.model(kind).get_model_object("model_sampling") for kind in models.KINDS}
    assert sampling_of["eps"].sigma_max < 20 < 4000 < sampling_of["zsnr"].sigma_max
    assert float(sampling_of["edm"].sigma_max) == pytest.approx(80.0, rel=1e-4)
    assert all(float(sampling_of[kind].sigma_max) <= 1.0 for kind in ("sd3", "flux", "schnell"))


def test_a_prompt_that_is_not_valid_says_why(comfy: Comfy):
    prompt = sampling("eps", steps=0, sampler_name="nonsense")
    prompt["5"]["inputs"].pop("positive")
    result = comfy.run(prompt)
    assert not result.ok and set(result.invalid) == {"5"}
    for words in ("KSampler 5", "positive", "steps", "nonsense"):
        assert words in result.error, result.error
    assert "Nowhere" in comfy.run({"1": node("Nowhere")}).error


def test_a_node_that_fails_is_named(comfy: Comfy):
    result = comfy.run({"1": node("TestFail", message="out of luck"), "2": node("TestKeep", value=["1", 0])})
    assert result.error == "TestFail 1: out of luck" and not result.ok and not result.interrupted


def test_what_is_unchanged_is_not_run_again(comfy: Comfy):
    comfy.fresh()
    assert comfy.run(sampling("eps")).cached == set()
    assert comfy.run(sampling("eps")).cached == set("123456")
    assert comfy.run(sampling("eps", cfg=5.0)).cached == set("1234")
    comfy.fresh()
    assert comfy.run(sampling("eps")).cached == set()


def slow(steps: int, seconds: float = 0.1):
    return sampling("eps", steps=steps, model=["7", 0]) | {"7": node("TestSlow", model=["1", 0], seconds=seconds)}


def test_events_tell_of_the_steps(comfy: Comfy):
    comfy.fresh()
    result = comfy.run(sampling("eps", steps=3))
    values = [data["value"] for data in result.named("progress")]
    assert values[0] == 1 and values[-1] == 3  # ComfyUI leaves out steps that are close in time
    assert {data["node"] for data in result.named("executing")} == set("123456")
    assert result.messages[-1][0] == "execution_success"


def test_interrupt_from_an_event(comfy: Comfy):
    def stop(event, data):
        if event == "progress" and data["value"] == 2:
            comfy.interrupt()

    comfy.fresh()
    result = comfy.run(slow(steps=6), on_event=stop)
    assert result.interrupted and not result.ok and result.error is None
    assert len(result.named("progress")) == 2 and "5" not in result.outputs
    assert comfy.run(slow(steps=1)).ok


def test_interrupt_from_another_thread(comfy: Comfy):
    comfy.fresh()
    timer = threading.Timer(0.6, comfy.interrupt)
    timer.start()
    result = comfy.run(slow(steps=40))
    timer.join()
    assert result.interrupted and len(result.named("progress")) < 40


def test_a_pack_that_fails_says_why(comfy: Comfy, tmp_path: Path):
    (tmp_path / "__init__.py").write_text("raise LookupError('missing a part')")
    with pytest.raises(Invalid, match="missing a part"):
        comfy.load_pack(tmp_path, "broken")


def test_comfyui_keeps_to_its_folder(comfy: Comfy, tmp_path_factory: pytest.TempPathFactory):
    assert comfy.base.is_relative_to(tmp_path_factory.getbasetemp())
    folders = comfy.folder_paths
    for place in (folders.get_output_directory(), folders.get_temp_directory(), folders.get_user_directory()):
        assert Path(place).is_relative_to(comfy.base)
    assert Path(comfy.nodes.__file__ or "").is_relative_to(comfy.tree)


def test_the_process_is_left_as_it_was(comfy: Comfy):
    def state():
        hooks = (sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), dict(os.environ))
        root = logging.getLogger()
        flags = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.backends.cuda.flash_sdp_enabled())
        return *hooks, root.level, root.handlers[:], *flags, torch.is_inference_mode_enabled(), sys.path[:]

    before, numbers = state(), torch.get_rng_state()
    comfy.fresh()
    assert comfy.run(sampling("sd3")).ok
    assert state() == before and torch.equal(torch.get_rng_state(), numbers)
    assert sys.path.index(str(comfy.tree)) > 0
    assert importlib.util.find_spec("tests").submodule_search_locations[0] == str(Path(__file__).parents[1])
