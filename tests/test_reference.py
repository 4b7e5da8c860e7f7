"""What a prompt is compared with: students of a teacher that is known exactly."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cryptomnesia import Guard
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.calibration import Calibration, calibrate
from cryptomnesia.calibration_misfit import binding_of, differences
from cryptomnesia.condition import Condition
from cryptomnesia.denoiser import CallableDenoiser
from cryptomnesia.errors import CalibrationError, InputError, NonFiniteError, NotApplicable
from cryptomnesia.mitigation.initial_noise import optimise_noise
from cryptomnesia.signals.baselines import sharpness
from cryptomnesia.signals.curvature import curvature_map
from cryptomnesia.signals.draws import draw_noise
from cryptomnesia.signals.guidance import Guidance
from cryptomnesia.signals.memorization import memorization_score

from .helpers.pipelines import build, ddim, stable_diffusion
from .helpers.toy import ABAR, SHAPE, prompts

WEIGHT = 7.5
EMPTY = torch.zeros(1, 2, 5)
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def answer(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """A teacher: its guidance hangs on x, and is not linear in it."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(48, 48, generator=generator) / 10, torch.randn(5, 48, generator=generator)
    pull = condition.mean(1) @ b
    flat = x.flatten(1)
    return (flat @ a + pull * (1 + t[:, None] / 1000) + torch.tanh(flat * pull)).view_as(x)


def guided(x: Tensor, t: Tensor, condition: Tensor, weight: Tensor | float) -> Tensor:
    empty = answer(x, t, torch.zeros_like(condition))
    return empty + weight * (answer(x, t, condition) - empty)


def told(x: Tensor, t: Tensor, condition: Tensor, scale: Tensor) -> Tensor:
    return guided(x, t, condition, scale.view(-1, 1, 1, 1))


def student(fn: Any = answer, **options: Any) -> CallableDenoiser:
    return CallableDenoiser(fn, ABAR, empty=EMPTY, latent_shape=SHAPE, **options)


TEACHER = student()
TOLD = student(told, reference="guidance scales", scales=(1.0, WEIGHT))
FIXED = student(lambda x, t, c: guided(x, t, c, WEIGHT), reference="empty prompt")


def test_a_network_that_is_told_its_scale_gives_back_its_teachers_guidance():
    found, expected = (memorization_score(d, prompts(3), draws=2) for d in (TOLD, TEACHER))
    for name in ("iso", "spectrum"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), **CLOSE)
    assert found.forward_rows == 3 * 2 * 2 * 2  # prompts, scales, levels, draws: the lower scale is no prompt's alone
    noise = draw_noise(TEACHER, 2, 5)
    condition = Condition(text=prompts(3))
    torch.testing.assert_close(Guidance(TOLD, noise)(condition), Guidance(TEACHER, noise)(condition), **CLOSE)
    apart = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    few = memorization_score(TOLD, prompts(3), noise=apart, batch_rows=5)
    torch.testing.assert_close(few.iso, memorization_score(TEACHER, prompts(3), noise=apart).iso, **CLOSE)


def test_one_that_has_its_scale_baked_in_gives_so_many_times_its_teachers():
    found, expected = (memorization_score(d, prompts(3), draws=2) for d in (FIXED, TEACHER))
    torch.testing.assert_close(found.iso, WEIGHT * expected.iso, **CLOSE)


@pytest.mark.parametrize("distilled", [TOLD, FIXED], ids=["told", "fixed"])
def test_p_values_are_the_teachers(distilled: CallableDenoiser):
    benign, others = prompts(120, seed=4), prompts(20, seed=5) * 1.5
    p_values = []
    for denoiser in (TEACHER, distilled):
        known = calibrate(denoiser, benign, draws=2, seed=7)
        assert known.reference == denoiser.reference
        p_values.append(known.p_value(memorization_score(denoiser, others, draws=2, alignment=False)))
    assert (p_values[0] - p_values[1]).abs().max() <= 1.01 / 121  # rounding may swap two neighbours


def test_maps_and_sharpness_are_the_teachers():
    x, level = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(2)), TEACHER.level(41)
    options: dict[str, Any] = {"estimator": "exact", "smoothing": 0.0}
    maps = [curvature_map(d, x, level, prompts(1), **options) for d in (TEACHER, TOLD, FIXED)]
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(maps[2], WEIGHT * maps[0], rtol=1e-3, atol=1e-3)
    found, expected = (sharpness(d, prompts(2), draws=1) for d in (TOLD, TEACHER))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    moved = [optimise_noise(d, Condition(text=prompts(1)), x[:1], steps=2) for d in (TEACHER, TOLD)]
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=1e-3)


# --- what it is bound to ---


def test_a_calibration_keeps_its_reference_and_serves_no_other(tmp_path):
    known = calibrate(FIXED, prompts(100), draws=1)
    known.save(tmp_path / "a.calibration.json")
    assert Calibration.load(tmp_path / "a.calibration.json") == known
    other = student(FIXED.fn)
    binding = binding_of(other, SHAPE, 1)
    assert differences(known.binding, binding) == ["reference"]
    assert other.fingerprint != FIXED.fingerprint
    with pytest.raises(CalibrationError, match="another reference: empty prompt, not empty branch"):
        known.require(other, 1, SHAPE)
    text = (tmp_path / "a.calibration.json").read_text()
    (tmp_path / "b.calibration.json").write_text(text.replace("empty prompt", "empty words"))
    with pytest.raises(CalibrationError, match="reference"):
        Calibration.load(tmp_path / "b.calibration.json")


def test_the_report_says_what_was_compared():
    letters = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))

    def encode(texts: list[str]) -> Tensor:
        return torch.stack([letters[list(text.encode()) or [0]].mean(0).expand(2, 5) for text in texts])

    for denoiser in (student(encode=encode), student(told, reference="guidance scales", encode=encode)):
        report = Guard(denoiser).check("a cat")
        assert report.reference == denoiser.reference and report.score is not None and report.score > 0


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reference": "benign bank"}, "unknown reference"),
        ({"reference": "guidance scales", "scales": (3.0, 3.0)}, "two scales, ascending"),
        ({"reference": "guidance scales", "scales": (1.0, float("nan"))}, "two scales, ascending"),
    ],
)
def test_bad_references_are_named(options: Any, words: str):
    with pytest.raises(InputError, match=words):
        student(told, **options)


def test_a_scale_that_is_ignored_is_told_but_for_the_empty_prompt():
    ignoring = student(lambda x, t, c, scale: answer(x, t, c), reference="guidance scales")
    with pytest.raises(NotApplicable, match="ignores the guidance scale"):
        memorization_score(ignoring, prompts(2))
    assert memorization_score(TOLD, EMPTY, draws=1).iso.item() == pytest.approx(0, abs=1e-5)
    assert memorization_score(ignoring, EMPTY, draws=1).iso.item() == 0


def test_an_empty_prompt_that_is_answered_with_nan_is_named():
    def fn(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.where(condition.abs().amax((1, 2)).view(-1, 1, 1, 1) > 0, answer(x, t, condition), torch.nan)

    with pytest.raises(NonFiniteError, match="the empty prompt with NaN"):
        memorization_score(student(fn, fingerprint="x"), prompts(2))


# --- pipelines ---


def scaled() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = stable_diffusion(time_cond_proj_dim=8)
        torch.nn.init.normal_(pipe.unet.time_embedding.cond_proj.weight)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_pipeline_is_compared_as_it_tells_or_as_it_is_told():
    assert to_denoiser(build("sd1")).reference == "empty branch"
    assert to_denoiser(scaled()).reference == to_denoiser(build("flux")).reference == "empty prompt"
    asked = to_denoiser(scaled(), reference="guidance scales")
    scores = [Guard(d).check("a cat", draws=1).iso for d in (asked, to_denoiser(scaled()))]
    assert asked.scales == (1.0, 7.5) and scores[0] != pytest.approx(scores[1])
    with pytest.raises(InputError, match="no input of this network"):
        to_denoiser(build("sd1"), reference="guidance scales")


def test_the_empty_prompt_of_a_distilled_model_is_no_row_of_zeros():
    pipe = build("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=True)
    denoiser = to_denoiser(pipe)
    assert not denoiser.empty.tensors["text"].any()
    denoiser.reference = "empty prompt"
    assert torch.equal(denoiser.empty.tensors["text"], denoiser.encode("").tensors["text"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["sd1", "flux-guided"])
def test_a_flag_that_contradicts_the_weights_is_told(family: str):
    pipe = scaled() if family == "sd1" else build(family)
    flags = {"time_cond_proj_dim": None} if family == "sd1" else {"guidance_embeds": False}
    (pipe.unet if family == "sd1" else pipe.transformer).register_to_config(**flags)
    with pytest.raises(InputError, match="contradict each other"):
        Guard(pipe).check("a cat", height=16, width=16)


def test_few_step_models_are_asked_where_they_start():
    from diffusers import LCMScheduler

    pipe = build("sd1")
    usual = to_denoiser(pipe).fingerprint
    pipe.scheduler = LCMScheduler.from_config(ddim().config)
    denoiser = to_denoiser(pipe)
    pipe.scheduler.set_timesteps(4)
    assert denoiser.levels.pure_noise.time.item() == pipe.scheduler.timesteps[0].item() == 999
    assert denoiser.reference == "empty prompt" and denoiser.fingerprint != usual
    assert replace(Guard(pipe).check("a cat", draws=1), reference=None).score is not None
