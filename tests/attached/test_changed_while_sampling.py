"""What was judged at the first step is what is sampled at all later ones; else the verdict is taken back."""

from typing import Any

import pytest
import torch
from diffusers import HeunDiscreteScheduler
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback

from cryptomnesia import Guard, UnverifiedBlocked, UnverifiedWarning
from cryptomnesia.attached.first_step import FirstStep
from cryptomnesia.attached.judged import Judged
from cryptomnesia.denoiser import Condition

from ..helpers.guarded import attached, call, flags_all, flags_none, rows, seeded
from ..helpers.pipelines import build
from ..helpers.recording import network_of

pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
EMBEDS = {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}


def at(step, change):
    """A callback that changes something once."""

    def callback(pipe, number, time, values):
        return (change(pipe, values) or {}) if number == step else {}

    return callback


def other_prompt(pipe, values):
    values["prompt_embeds"] = values["prompt_embeds"].flip(1)
    return values


def in_place(pipe, values):
    values["prompt_embeds"].mul_(1.5)


def behind_the_counter(pipe, values):
    values["prompt_embeds"].data.mul_(1.5)


def swapped_branches(pipe, values):
    return {"prompt_embeds": values["prompt_embeds"].roll(1, 0)}


def negative_alone(pipe, values):
    pipe._guidance_scale = 0.0
    return {"prompt_embeds": values["prompt_embeds"][:1]}


def trained(pipe, values):
    network_of(pipe).conv_in.weight.add_(0.1)


def adapted(pipe, values):
    layer = network_of(pipe).conv_in
    layer.scaling, layer.active_adapters = {"style": 1.0}, ["style"]


def replaced(pipe, values):
    pipe.unet = build("sd1", seed=3).unet


def told(pipe, values):
    pipe._cross_attention_kwargs = {"other": 1.0}


PROMPT = {other_prompt, in_place, behind_the_counter, swapped_branches, negative_alone}


@pytest.mark.parametrize(
    "change",
    [other_prompt, in_place, behind_the_counter, swapped_branches, negative_alone, trained, adapted, replaced, told],
)
@pytest.mark.parametrize("step", [0, 2])
def test_what_a_callback_changes_is_noticed(change, step):
    taken = []

    def callback(pipe, number, time, values):
        taken.append(number)
        return at(step, change)(pipe, number, time, values)

    options = {"steps": 6, "callback_on_step_end": callback, "negative_prompt": "b c", **EMBEDS}
    with pytest.raises(UnverifiedBlocked, match="changed while sampling") as caught:
        attached(Guard(build("sd1"), flags_none("sd1"), "block"), **options)
    reason = caught.value.report.reason
    assert ("the prompt was changed" in reason) == (change in PROMPT | {told})
    # no step follows the swap; another network is seen at the end only, and a lone negative branch one call late
    late = {replaced: 5, negative_alone: step + 1}
    assert taken[-1] == late.get(change, step)
    with pytest.warns(UnverifiedWarning, match="changed while sampling"):
        report = attached(Guard(build("sd1"), flags_none("sd1")), **options).memorization[0]
    assert (report.verdict, report.score) == ("not applicable", None)


def test_a_suspicion_is_not_taken_back():
    options = {"steps": 3, "callback_on_step_end": at(0, other_prompt), **EMBEDS}
    report = attached(Guard(build("sd1"), flags_all("sd1")), **options).memorization[0]
    assert report.memorized and report.note == "the prompt was changed while sampling"


def test_only_the_images_whose_prompt_was_changed_lose_their_verdict():
    def second(pipe, values):
        values["prompt_embeds"][3] *= 2

    options = {"steps": 3, "callback_on_step_end": at(0, second), "generator": seeded(1, 2), **EMBEDS}
    with pytest.warns(UnverifiedWarning, match="1 of 2"):
        reports = attached(Guard(build("sd1"), flags_none("sd1")), ["a cat", "a dog"], **options).memorization
    assert [report.verdict for report in reports] == ["clear", "not applicable"]


def nothing(pipe, values):
    return {}


def equal_copy(pipe, values):
    return {"prompt_embeds": values["prompt_embeds"].clone()}


def other_latents(pipe, values):
    return {"latents": values["latents"] * 0.9}


def other_negative(pipe, values):
    changed = values["prompt_embeds"].clone()
    changed[: len(changed) // 2] *= 0.5
    return {"prompt_embeds": changed}


def guidance_off(pipe, values):
    pipe._guidance_scale = 0.0
    return {"prompt_embeds": values["prompt_embeds"].chunk(2)[1]}


def other_scale(pipe, values):
    pipe._guidance_scale = 3.0


def another_guarded_call(pipe, values):
    call(pipe, "two dogs", generator=seeded(9)[0])


@pytest.mark.parametrize(
    "change",
    [nothing, equal_copy, other_latents, other_negative, guidance_off, other_scale, another_guarded_call],
)
@pytest.mark.parametrize("prompt", ["a cat", ["a cat", "a dog"]])
def test_what_leaves_the_prompt_alone_is_no_change(change, prompt):
    options = {"steps": 4, "callback_on_step_end": at(1, change), **EMBEDS}
    guard = Guard(build("sd1"), flags_none("sd1"), "block")
    out, asked = rows(guard.denoiser.pipe, lambda: attached(guard, prompt, **options))
    if change is another_guarded_call:
        return
    expected, before = rows(pipe := build("sd1"), lambda: call(pipe, prompt, **options))
    assert torch.equal(out.images, expected.images) and all(report.verdict == "clear" for report in out.memorization)
    assert asked - before == sum(report.forward_rows for report in out.memorization)  # no row for comparing


@pytest.mark.parametrize(("family", "cutoff"), [("sd1", SDCFGCutoffCallback), ("sdxl", SDXLCFGCutoffCallback)])
def test_guidance_that_diffusers_itself_cuts_off_is_no_change(family, cutoff):
    options = {"steps": 5, "callback_on_step_end": cutoff(cutoff_step_ratio=0.4)}
    out = attached(Guard(build(family), flags_none(family), "block"), **options)
    assert torch.equal(out.images, call(build(family), **options).images)


def test_a_guidance_interval_of_stable_diffusion_3_is_no_change():
    options = {
        "steps": 4,
        "skip_guidance_layers": [0],
        "skip_layer_guidance_start": 0.0,
        "skip_layer_guidance_stop": 1.0,
    }
    out = attached(Guard(build("sd3"), flags_none("sd3"), "block"), **options)
    assert torch.equal(out.images, call(build("sd3"), **options).images)


def test_samplers_that_ask_twice_are_no_change():
    pipe = build("sd1")
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    assert attached(Guard(pipe, flags_none("sd1"), "block"), steps=4).memorization[0].verdict == "clear"


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_modes_of_torch_make_no_difference(mode):
    with mode():
        assert attached(Guard(build("sd1"), flags_none("sd1"), "block"), steps=3).memorization[0].verified


# --- calls of one branch each ---


def asked(*branches, beside=True):
    """What Judged says to calls with these branches at these times, after one of both, or of the prompt alone, at 9."""
    denoiser = Guard(build("sd1")).denoiser
    text = {
        "pos": denoiser.encode(["a", "b"]),
        "neg": denoiser.encode(["c", "d"]),
        "new": denoiser.encode(["e", "f"]),
    }
    step = FirstStep(torch.zeros(2, 4, 8, 8), 9.0, text["pos"], text["neg"] if beside else None, None, None)
    host: Any = denoiser
    judged = Judged(denoiser, host, step, denoiser.fingerprint, False)
    found = []
    for names, time in branches:
        condition = Condition.cat([text[name] for name in names.split()])
        arguments = {"sample": torch.zeros(len(condition), 4, 8, 8), "timestep": time}
        found.append(judged.compare(arguments | {"encoder_hidden_states": condition.tensors["text"]}, [torch.zeros(1)]))
    return [difference is not None for difference in [*found, judged.at_the_end()]]


@pytest.mark.parametrize(
    ("branches", "changed"),
    [
        ([("neg pos", 9), ("neg pos", 8)], None),
        ([("neg", 9), ("pos", 9), ("neg", 8), ("pos", 8)], None),
        ([("pos", 9), ("neg", 9), ("pos", 8), ("neg", 8)], None),
        ([("pos", 9), ("pos", 8)], None),
        ([("new pos", 9), ("neg pos pos", 8)], None),
        ([("pos neg", 9)], 0),
        ([("neg new", 9)], 0),
        ([("neg pos new", 9)], 0),
        ([("neg new pos", 9)], 0),
        ([("new", 9)], 0),
        ([("neg", 9), ("neg", 8)], 1),
        ([("neg", 9), ("pos", 8)], 1),
        ([("pos", 9), ("neg", 8)], 2),
        ([("neg", 9)], 1),
    ],
)
def test_branches_may_come_apart_but_the_prompt_must_come(branches, changed):
    found = asked(*branches)
    assert (found.index(True) if any(found) else None) == changed


@pytest.mark.parametrize(
    ("branches", "changed"),
    [
        ([("pos", 8), ("pos", 7)], None),
        ([("neg", 9), ("pos", 8), ("neg", 8)], None),
        ([("new", 9), ("pos", 8), ("neg", 8)], None),  # whatever the negative prompt is
        ([("neg", 9), ("new", 9)], 1),
        ([("neg", 9), ("neg", 8)], 1),
        ([("new", 8)], 0),
        ([("pos", 8), ("new", 8)], 1),  # two calls at one time, as second-order samplers make
    ],
)
def test_what_first_came_alone_may_have_a_branch_beside_it_from_the_start(branches, changed):
    found = asked(*branches, beside=False)
    assert (found.index(True) if any(found) else None) == changed
