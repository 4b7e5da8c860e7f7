"""A watched pipeline makes the same images, and its reports say what is measured separately."""

import warnings

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)

from cryptomnesia import Guard
from cryptomnesia.denoiser import Condition
from cryptomnesia.errors import MemorizationWarning, UnverifiedBlocked, UnverifiedWarning
from cryptomnesia.signals.draws import derived_seed, draw_noise
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.memorization import memorization_score

from ..helpers.guarded import (
    SHAPE,
    attached,
    calibration,
    call,
    every_guarded,
    flags_all,
    flags_none,
    initial_noise,
    rows,
    seeded,
    untouched,
)
from ..helpers.pipelines import build
from ..helpers.recording import network_of

quiet = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.MemorizationWarning")
pytestmark = pytest.mark.filterwarnings("ignore::cryptomnesia.errors.UnverifiedWarning")


def report_of(guard, *args, **options):
    return attached(guard, *args, **options).memorization[0]


# --- nothing changes ---


@quiet
@every_guarded
@pytest.mark.parametrize("steps", [2, 50])
def test_watched_images_and_all_state_are_those_of_an_unguarded_call(family, steps):
    alone, pipe = build(family), build(family)
    original, names = type(pipe), sorted(vars(pipe))
    expected, own = call(alone, steps=steps, generator=(mine := seeded(0)[0])), seeded(0)[0]
    guard = Guard(pipe, flags_all(family, draws=2))
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    with guard.attached():
        out = call(pipe, steps=steps, generator=own)
    assert torch.equal(out.images, expected.images) and out.keys() == expected.keys()
    assert out.memorization[0].verdict == "memorized"
    assert torch.equal(own.get_state(), mine.get_state()) and torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype and torch.is_grad_enabled()
    assert untouched(pipe, original) and set(names) <= set(vars(pipe)) == set(vars(alone))
    assert str(vars(pipe.scheduler)) == str(vars(alone.scheduler))


@pytest.mark.parametrize(
    ("scheduler", "spacing", "steps", "extra"),
    [
        (DDIMScheduler, "leading", 50, 0),
        (DDIMScheduler, "leading", 4, 2),
        (PNDMScheduler, "leading", 50, 0),
        (EulerDiscreteScheduler, "leading", 50, 0),
        (EulerDiscreteScheduler, "linspace", 50, 2),
        (EulerAncestralDiscreteScheduler, "linspace", 5, 2),
        (DPMSolverMultistepScheduler, "linspace", 5, 2),
        (HeunDiscreteScheduler, "trailing", 5, 2),
    ],
)
def test_with_any_scheduler_an_image_costs_two_rows_or_none(scheduler, spacing, steps, extra):
    outputs = []
    for guarded, pipe in ((False, build("sd1")), (True, build("sd1"))):
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, timestep_spacing=spacing)
        guard = Guard(pipe, flags_none("sd1"))
        if guarded:
            guard.attach()
        outputs.append(rows(pipe, lambda: call(pipe, ["a cat", "a dog"], steps)))  # noqa: B023
    (expected, before), (out, after) = outputs
    assert torch.equal(out.images, expected.images)
    assert after - before == 2 * extra and [r.forward_rows for r in out.memorization] == [extra] * 2
    noise = torch.randn(2, *SHAPE, generator=seeded(0)[0])
    for report, x in zip(out.memorization, noise, strict=True):
        alone = memorization_score(guard.denoiser, guard.denoiser.encode(report.prompt), noise=x[None])
        # schedulers that start at their largest sigma shrink the noise by a quarter of a percent
        assert report.iso == pytest.approx(alone.iso.item(), rel=1e-4 if spacing == "leading" else 0.01)


@every_guarded
def test_without_guidance_the_empty_prompt_is_asked_for(family):
    guard = Guard(build(family), calibration(family))
    expected = call(build(family), steps=50, guidance_scale=1.0).images
    out, spent = rows(guard.denoiser.pipe, lambda: attached(guard, steps=50, guidance_scale=1.0))
    alone = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), noise=initial_noise(0))
    assert torch.equal(out.images, expected)
    assert out.memorization[0].iso == pytest.approx(alone.iso.item(), rel=1e-4)
    assert out.memorization[0].forward_rows == 1
    if not family.startswith("pixart"):  # whose first weight is no layer's
        assert spent == 51


def test_user_callbacks_see_every_step():
    for family, name in (("sd1", "callback_on_step_end"), ("pixart", "callback")):
        seen = []

        def note(*args, seen=seen):
            seen.append(args[-3] if isinstance(args[0], int) else args[1])
            return args[-1]

        report_of(Guard(build(family), flags_none(family)), steps=3, **{name: note})
        assert seen == [0, 1, 2]


def test_objects_made_from_the_guarded_class_are_not_guarded():
    pipe = build("sd1")
    with Guard(pipe, flags_all("sd1"), "block", unverified="allow").attached():
        other = type(pipe)(**pipe.components, requires_safety_checker=False)
        assert not hasattr(call(other), "memorization")


# --- the numbers ---


@every_guarded
@pytest.mark.parametrize("case", ["handed over", "negative prompt", "other steps"])
def test_the_score_is_the_one_measured_on_the_same_noise(family, case):
    guard = Guard(build(family), calibration(family))
    options = {"handed over": {}, "negative prompt": {"negative_prompt": "a b c"}, "other steps": {"steps": 7}}[case]
    report = report_of(guard, **{"steps": 50} | options)
    alone = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), noise=initial_noise(0))
    assert report.score == pytest.approx(guard.calibration.score(alone).item(), abs=1e-4)
    assert report.iso == pytest.approx(alone.iso.item(), rel=1e-4)
    assert report.p_value == pytest.approx(guard.calibration.p_value(alone).item(), abs=0.02)  # ties may break
    # Stable Diffusion 3 starts at time 1 whatever the number of steps
    handed = case == "handed over" or (case == "other steps" and family == "sd3")
    assert report.forward_rows == (0 if handed else 1 if case == "negative prompt" else 2)


@pytest.mark.parametrize("family", ["sd1", "pixart", "sd3"])
def test_prompts_pull_somewhere(family):
    assert report_of(Guard(build(family))).iso > 1e-3


def test_further_draws_are_private_and_ask_the_empty_prompt_once():
    guard = Guard(build("sd1"), calibration("sd1", draws=3), seed=7)
    reports = [report_of(guard, steps=50) for _ in range(2)]
    private = draw_noise(guard.denoiser, 2, derived_seed(7, "attached", False), SHAPE)
    noise = torch.cat([initial_noise(0), private])
    alone = memorization_score(guard.denoiser, guard.denoiser.encode("a cat"), noise=noise)
    for report in reports:
        assert report.score == pytest.approx(guard.calibration.score(alone).item(), abs=1e-4)
        assert report.iso == pytest.approx(alone.iso.item(), rel=1e-4)
    assert [r.forward_rows for r in reports] == [4, 2]


def test_sizes_of_the_call_count_on_its_own_noise_only():
    guard = Guard(build("sdxl"), calibration("sdxl", draws=2))
    denoiser = guard.denoiser
    report = report_of(guard, original_size=(512, 512))
    sizes, condition = torch.tensor([[512.0, 512, 0, 0, 16, 16]]), denoiser.encode("a cat")
    level = denoiser.levels.pure_noise
    own = [
        denoiser.predict(initial_noise(0), level, Condition(sizes=sizes, **c.tensors)).noise
        for c in (condition, denoiser.empty)
    ]
    private = Guidance(denoiser, draw_noise(denoiser, 1, derived_seed(0, "attached", False), SHAPE))(condition)
    assert report.iso == pytest.approx(((own[0] - own[1]).norm() + private.norm()).item() / 2, rel=1e-4)


@quiet
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "pixart"])
def test_every_image_of_a_batch_is_judged_as_if_alone(family):
    guard = Guard(build(family), calibration(family, draws=2))
    with guard.attached():
        out = call(guard.denoiser.pipe, ["a cat", "two dogs"], generator=seeded(1, 2, 3, 4), num_images_per_prompt=2)
    assert [r.prompt for r in out.memorization] == ["a cat", "a cat", "two dogs", "two dogs"] and len(out.images) == 4
    for seed, report in enumerate(out.memorization, 1):
        alone = report_of(guard, report.prompt, generator=seeded(seed)[0])
        assert (report.score, report.iso) == pytest.approx((alone.score, alone.iso), abs=1e-3)
    assert len({round(r.score, 3) for r in out.memorization}) == 4


@pytest.mark.parametrize("family", ["sd1", "sd3", "pixart"])
def test_embeddings_are_judged_like_their_text(family):
    guard = Guard(build(family), calibration(family))
    expected, rest = report_of(guard), {}
    positive, negative = guard.denoiser.encode("a cat").tensors, guard.denoiser.empty.tensors
    for name, argument in (("text", "prompt_embeds"), ("pooled", "pooled_prompt_embeds")):
        if name in positive:
            rest |= {argument: positive[name], f"negative_{argument}": negative[name]}
    if family == "pixart":
        rest |= {"prompt_attention_mask": positive["mask"], "negative_prompt_attention_mask": negative["mask"]}
        rest["negative_prompt"] = None
    report = report_of(guard, None, **rest)
    assert report.prompt is None and report.note is None
    assert report.score == pytest.approx(expected.score, abs=1e-4)


def test_a_tuple_stays_what_it_was_and_carries_the_reports():
    expected, pipe = call(build("sd1"), return_dict=False), build("sd1")
    with Guard(pipe, flags_none("sd1")).attached():
        out = call(pipe, return_dict=False)
    assert isinstance(out, tuple) and len(out) == len(expected) == 2
    assert torch.equal(out[0], expected[0]) and out[1] is expected[1] is None
    assert out.memorization[0].verdict == "clear"


def test_a_warning_points_at_the_call_without_the_prompt():
    pipe = build("sd1")
    with Guard(pipe, flags_all("sd1")).attached(), pytest.warns(MemorizationWarning, match="2 of 2") as caught:
        pipe(["secret cat"] * 2, num_inference_steps=1, output_type="latent")
    assert caught[0].filename == __file__ and "secret" not in str(caught[0].message)
    with Guard(pipe, flags_none("sd1")).attached(), warnings.catch_warnings():
        warnings.simplefilter("error", MemorizationWarning)
        call(pipe)


# --- no verdict ---


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("sd1", {"cross_attention_kwargs": {"other": 0.5}}, "cross_attention_kwargs"),
        ("sd3", {"joint_attention_kwargs": {"scale": 0.5}}, "joint_attention_kwargs"),
        ("sd1", {"latents": torch.zeros(1, *SHAPE)}, "standard normal"),
        ("sd1", {"latents": initial_noise(1) * 0.5}, "standard normal"),
        ("sd1", {"latents": initial_noise(1) + 0.5}, "standard normal"),
    ],
)
def test_calls_that_cannot_be_judged_say_why_and_are_made(family, options, reason):
    expected, pipe = call(build(family), **options).images, build(family)
    with Guard(pipe, flags_all(family)).attached(), pytest.warns(UnverifiedWarning, match=reason):
        out = call(pipe, **options)
    report = out.memorization[0]
    assert report.verdict == "not applicable" and reason in report.reason and report.score is None
    assert torch.equal(out.images, expected)
    with Guard(pipe, flags_all(family), "block").attached(), pytest.raises(UnverifiedBlocked, match=reason) as caught:
        call(pipe, **options)
    assert caught.value.report.reason == report.reason


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd1", StableDiffusionImg2ImgPipeline),
        ("sdxl", StableDiffusionXLImg2ImgPipeline),
        ("sd3", StableDiffusion3Img2ImgPipeline),
    ],
)
def test_image_to_image_is_not_judged(family, kind):
    extra = {"requires_safety_checker": False} if family == "sd1" else {}
    size = {"height": 16, "width": 16} if family == "sd3" else {}
    pipe = kind(**build(family).components, **extra)
    image = torch.zeros(1, 3, 16, 16)
    with Guard(pipe, flags_all(family), "block", unverified="allow").attached():
        out = pipe("a cat", image=image, num_inference_steps=4, strength=0.5, output_type="pt", **size)
    assert out.memorization[0].verdict == "not applicable" and "starts from an image" in out.memorization[0].reason


def test_normal_latents_of_the_user_are_judged():
    guard = Guard(build("sd1"), calibration("sd1"))
    given = report_of(guard, latents=initial_noise(5))
    drawn = report_of(guard, generator=seeded(5)[0])
    assert given.score == pytest.approx(drawn.score, abs=1e-6) and given.p_value is not None


def test_without_a_fitting_calibration_there_is_a_score_only():
    pipe = build("sd1")
    report = report_of(Guard(pipe))
    assert (report.verdict, report.p_value, report.score) == ("uncalibrated", None, report.iso)
    assert "cryptomnesia calibrate" in report.reason
    guard = Guard(pipe, flags_all("sd1"), "block", unverified="allow")
    report = report_of(guard, width=24)
    assert report.verdict == "uncalibrated" and "latent size" in report.reason
    # as peft's LoRA layers look
    network_of(pipe).conv_in.scaling, network_of(pipe).conv_in.active_adapters = {"style": 1.0}, ["style"]
    report = report_of(guard)
    assert report.verdict == "uncalibrated" and "another model" in report.reason and report.alpha is None
    del network_of(pipe).conv_in.scaling
    with torch.no_grad():
        network_of(pipe).conv_in.weight.add_(0.1)
    assert "another model" in report_of(guard).reason
