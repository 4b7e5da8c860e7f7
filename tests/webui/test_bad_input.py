"""What can go wrong in a web UI: nothing of it lets an image through that was to be checked, and all of it is said."""

import stat
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import MEMORIZED, ORDINARY
from .host import Processing


@pytest.fixture
def host(request: pytest.FixtureRequest, start: Any) -> Any:
    return start(getattr(request, "param", "a1111"))


with_hook = pytest.mark.parametrize("host", ["a1111", "forge"], indirect=True)
every = pytest.mark.parametrize("host", ["a1111", "forge", "sdnext"], indirect=True)
BLOCK = {"policy": "block"}


def said(p: Any) -> str:
    return " ".join(p.comments)


@every
@pytest.mark.parametrize(
    "choices, words",
    [
        ({"polcy": "block"}, "polcy is no argument of Cryptomnesia: use policy"),
        ({"policy": "stop"}, "policy is one of off, warn, rewrite, block"),
        ({"policy": "warn", "embed": "yes"}, "embed is true or false, not 'yes'"),
        ({"policy": "warn", "draws": 2.5}, "draws is a whole number"),
        ({"policy": "warn", "calibration": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_arguments_that_are_none_let_nothing_out(host: Any, make: Any, choices: Any, words: str):
    p, processed = make(ORDINARY, choices)
    assert not processed.images and words in said(p) and "blocked" in said(p)
    assert words in processed.extra_generation_params["Cryptomnesia message"][0]


@every
def test_no_calibration(make: Any):
    p, processed = make(ORDINARY, {"policy": "warn", "calibration": "none"})
    assert len(processed.images) == 1 and "no calibration was chosen" in said(p)
    assert processed.extra_generation_params["Cryptomnesia"] == ["uncalibrated"]
    p, processed = make(ORDINARY, {"policy": "block", "calibration": "none"})
    assert not processed.images and "could not be checked, blocked" in said(p)
    p, processed = make(ORDINARY, {"policy": "block", "calibration": "none", "unverified": "allow"})
    assert len(processed.images) == 1 and not p.comments


@every
def test_a_checkpoint_switched_between_batches(host: Any, demo: Any, tmp_path: Path):
    """The calibration that fitted the first is not used for the second."""
    weight = demo.unet.conv_in.weight

    def switch(p: Any, *args: Any, batch_number: int, **about: Any) -> None:
        if batch_number == 1:
            with torch.no_grad():
                weight.mul_(1.5)

    host.others.append(types.SimpleNamespace(before_process_batch=switch))
    try:
        p = Processing(host, ORDINARY, tmp_path, (BLOCK,), n_iter=2)
        processed = host.run(p)
    finally:
        with torch.no_grad():
            weight.div_(1.5)
    assert processed.extra_generation_params["Cryptomnesia"][0].startswith("clear") and len(processed.images) == 1
    assert processed.extra_generation_params["Cryptomnesia"][1] == "uncalibrated"
    assert "batch 2: the image could not be checked, blocked" in said(p) and not host.errors


@with_hook
def test_another_set_of_loras_is_another_model(host: Any, demo: Any, make: Any):
    weight = demo.unet.conv_in.weight

    def merge() -> Any:
        before = weight.detach().clone()
        with torch.no_grad():
            weight.add_(0.1)

        def undo() -> None:
            with torch.no_grad():
                weight.copy_(before)

        return undo

    host.lora = merge
    p, processed = make(f"{MEMORIZED} <lora:some:1>", BLOCK)
    assert not processed.images and "LoRA" in said(p)
    p, processed = make(MEMORIZED, BLOCK)  # the same as before
    assert "likely reproduces" in said(p)


def test_what_the_ui_changes_just_before_sampling_is_seen(host: Any, make: Any):
    """The option for a schedule that ends in pure noise."""
    roots = host.model.alphas_cumprod_original.sqrt()
    ended = (roots - roots[-1]).mul(roots[0] / (roots[0] - roots[-1])).square().clamp_min(4.8e-8)

    def before(p: Any, *args: Any, **about: Any) -> None:
        host.model.alphas_cumprod = ended

    host.others.append(types.SimpleNamespace(process_batch=before))
    p, processed = make(MEMORIZED, BLOCK)
    assert not processed.images and processed.extra_generation_params["Cryptomnesia"] == ["uncalibrated"] and p.comments


@with_hook
@pytest.mark.parametrize("options", [{"cfg_scale": 1}, {"firstpass_image": object(), "enable_hr": True}])
def test_what_is_not_applicable_says_why(make: Any, options: dict[str, Any]):
    p, processed = make(ORDINARY, {"policy": "warn"}, **options)
    assert processed.extra_generation_params["Cryptomnesia"] == ["not applicable"] and len(processed.images) == 1
    assert ("CFG scale 1" if "cfg_scale" in options else "starts from an image") in said(p)
    assert not make(ORDINARY, BLOCK, **options)[1].images


@with_hook
def test_img2img_is_left_alone(make: Any):
    p, processed = make(MEMORIZED, BLOCK, init_images=["an image"])
    assert len(processed.images) == 1 and not p.comments and not p.extra_generation_params


def test_a_backend_without_the_hook_or_that_is_not_known(host: Any, make: Any):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(host.script), "process_before_every_sampling", lambda *args, **about: None)
        p, processed = make(ORDINARY, BLOCK)
    assert not processed.images and "sampling was not seen to begin" in said(p)
    host.model.forge_objects = types.SimpleNamespace(unet=None)  # as Forge classic has them
    p, processed = make(ORDINARY, BLOCK)
    assert not processed.images and "Forge classic and reForge are not" in said(p)


@with_hook
def test_a_check_that_fails_is_no_check(host: Any, make: Any):
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("surprise")

    host.ui.prompt_parser.SdConditioning = fail
    p, processed = make(ORDINARY, BLOCK)
    assert not processed.images and "the check failed (KeyError: 'surprise')" in said(p)
    assert len(make(ORDINARY, {"policy": "warn"})[1].images) == 1


@every
def test_interrupted_jobs(host: Any, make: Any):
    state = host.ui.shared.state

    def stop(p: Any, *args: Any, batch_number: int, **about: Any) -> None:
        state.interrupted = True

    host.others.append(types.SimpleNamespace(postprocess_batch=stop))
    _, processed = make(ORDINARY, BLOCK, n_iter=2)
    assert len(processed.images) == 1
    host.others.clear()
    assert len(make(ORDINARY, BLOCK)[1].images) == 1  # the guard was taken off again


def test_scripts_that_sample_again_are_not_ours(host: Any, tmp_path: Path):
    """ADetailer's and others' have a p of their own, and name the scripts that run on it."""
    inner: list[Any] = []

    def again(p: Any, pp: Any, *args: Any) -> None:
        if not inner:
            own = Processing(host, MEMORIZED, tmp_path, init_images=[pp.image])
            inner.append(own)
            keep, host.script = host.script, types.SimpleNamespace()
            try:
                host.run(own)
            finally:
                host.script = keep

    host.others.append(types.SimpleNamespace(postprocess_image=again))
    p = Processing(host, ORDINARY, tmp_path, (BLOCK,))
    processed = host.run(p)
    assert not host.errors and len(processed.images) == 1 and "Cryptomnesia: clear" in processed.infotexts[0]
    assert not inner[0].comments and not inner[0].extra_generation_params


def test_dynamic_prompts_before_it(host: Any, make: Any):
    def write(p: Any, *args: Any) -> None:
        p.all_prompts = [MEMORIZED if i % 2 else ORDINARY for i in range(len(p.all_prompts))]

    host.others.append(types.SimpleNamespace(process=write))
    _, processed = make("__wildcard__", BLOCK, batch_size=2, n_iter=2)
    verdicts = [text.split()[0] for text in processed.extra_generation_params["Cryptomnesia"]]
    assert verdicts == ["clear", "memorized"] * 2 and len(processed.images) == 2


def test_a_folder_in_which_no_provenance_can_be_written(make: Any, tmp_path: Path):
    (tmp_path / "00001.png.cryptomnesia.json").mkdir()  # even root cannot replace it by a file
    p, processed = make(ORDINARY, {"policy": "warn"})
    assert len(processed.images) == 1 and "no provenance file" in said(p)
    assert stat.S_ISDIR((tmp_path / "00001.png.cryptomnesia.json").stat().st_mode)


def test_prompts_that_are_read_as_nan(host: Any, make: Any, monkeypatch: pytest.MonkeyPatch):
    whole = type(host.model).get_learned_conditioning
    monkeypatch.setattr(type(host.model), "get_learned_conditioning", lambda *args: whole(*args) * float("nan"))
    p, processed = make(ORDINARY, BLOCK)
    assert not processed.images and "NaN" in said(p)


@with_hook
def test_nothing_is_drawn_from_random_numbers_of_the_host(make: Any):
    state = torch.get_rng_state()
    numbers = np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]
    make(ORDINARY, {"policy": "warn"})
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numbers  # type: ignore[union-attr, index]
